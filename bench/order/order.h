// lathe-bench order.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::bench {

void add_order(CLI::App& app);

}  // namespace lathe::bench
