// What operations that keep a state of each sequence ask of a batch.
#pragma once

#include "kernels/paged_attention/paged_batch.h"

namespace lathe::kernels {

// Throws ShapeError, with the operation's name, where the batch has no slots or one outside [0, slots).
void expect_state_slots(const char* operation, const PagedBatch& batch, int64_t slots);

}  // namespace lathe::kernels
