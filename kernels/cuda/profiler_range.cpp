#include "kernels/cuda/profiler_range.h"

#if defined(LATHE_WITH_CUDA) && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

namespace lathe::kernels {
ProfilerRange::ProfilerRange(const char* name) { nvtxRangePushA(name); }
ProfilerRange::~ProfilerRange() { nvtxRangePop(); }
}  // namespace lathe::kernels
#else
namespace lathe::kernels {
ProfilerRange::ProfilerRange(const char*) {}
ProfilerRange::~ProfilerRange() {}  // NOLINT(performance-trivially-destructible): not with CUDA
}  // namespace lathe::kernels
#endif
