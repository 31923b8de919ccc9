// Memory that a call of attention works in. Each thread keeps its own, which only grows, so that a call allocates
// nothing once the largest shape has been seen; tagged workspace in core's table.
#pragma once

#include <cstdint>

namespace lathe::kernels {

// A thread's pieces: `call` belongs to the whole call and is read by the tasks of other threads, `task` to one task.
enum class ScratchUse { call, task };

// At least `floats` floats, aligned to 64 bytes, with the contents of earlier calls. Stays valid until this thread
// asks for more of the same use.
float* attention_scratch(ScratchUse use, int64_t floats);

}  // namespace lathe::kernels
