// How often parallel_for (thread_pool.h) went to several threads: what a step's plan costs beside its work.
#pragma once

#include <cstdint>

namespace lathe {

// Of the process, since it began. A call that runs inline does not count.
int64_t fork_count();

}  // namespace lathe
