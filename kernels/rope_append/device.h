// rope_append on a device (cuda, simt).
#pragma once

#include "kernels/rope_append/rope_append.h"

namespace lathe::kernels::device {

// Whether there is a body: heads of whole groups that a warp holds, everything at multiples of 16 bytes.
bool appends_turned(const KvPages& pages, const NewHeads& heads);
void rope_append(const KvPages& pages, const NewHeads& heads, const PagedBatch& batch);

}  // namespace lathe::kernels::device
