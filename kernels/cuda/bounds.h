// cu_seqlens as kernel arguments (at most 4 KiB of them), so that an operation that sums by sequence copies nothing to
// the device, allocates nothing and waits for nothing.
#pragma once

#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int sequences_per_launch = 512;

// Sequence s of `count` holds tokens [at[s], at[s + 1]).
struct SequenceBounds {
  int32_t at[sequences_per_launch + 1];
  int count;
};

// Calls start(bounds) for all sequences of cu_seqlens (on the host), in order, as many at a time as a launch takes.
template <class Start>
void for_each_launch(const int32_t* cu_seqlens, int64_t sequences, const Start& start) {
  for (int64_t first = 0; first < sequences; first += sequences_per_launch) {
    SequenceBounds bounds;
    bounds.count =
        sequences - first < sequences_per_launch ? static_cast<int>(sequences - first) : sequences_per_launch;
    for (int i = 0; i <= bounds.count; ++i) bounds.at[i] = cu_seqlens[first + i];
    start(bounds);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
