// Stages of shared memory that cp.async fills while others are computed with.
#pragma once

#include "kernels/cuda/ptx.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// As many stages as said, each for every stages-th step, so that `ahead` steps are on their way while one is computed.
// fill(step) starts the copies of a step. A step is one group of copies, an empty one past the last step, so that a
// wait can count them. All threads of a block call
//
//   pipeline.start(steps, fill);
//   for (int step = 0; step < steps; ++step) {
//     pipeline.advance(step, steps, fill);
//     … step's stage is there
//   }
template <int stages_>
struct Pipeline {
  static constexpr int stages = stages_, ahead = stages - 1;

  template <class Fill>
  __device__ __forceinline__ void start(int steps, const Fill& fill) const {
    for (int step = 0; step < ahead; ++step) {
      if (step < steps) fill(step);
      cp_async_commit();
    }
  }

  // The stage of `step` is there for all threads, and the stage of the step before, which all are done with, is being
  // filled for a later one. With a single stage nothing is on its way meanwhile.
  template <class Fill>
  __device__ __forceinline__ void advance(int step, int steps, const Fill& fill) const {
    if constexpr (stages == 1) {
      __syncthreads();  // all are done with the step before
      fill_ahead(step, steps, fill);
      cp_async_wait<0>();
      __syncthreads();  // the stage is there for all
    } else {
      wait();
      fill_ahead(step, steps, fill);
    }
  }

  // The two halves of advance(), for loops with something between them. `further`: the stages of so many more steps are
  // there.
  template <int further = 0>
  __device__ __forceinline__ void wait() const {
    cp_async_wait<ahead - 1 - further>();
    __syncthreads();
  }
  template <class Fill>
  __device__ __forceinline__ void fill_ahead(int step, int steps, const Fill& fill) const {
    if (step + ahead < steps) fill(step + ahead);
    cp_async_commit();
  }
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
