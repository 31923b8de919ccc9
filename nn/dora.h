// The norms of DoRA (kernels/dora_norm/dora_norm.h) of a linear, while its adapter trains.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "autograd/ops/linear.h"

namespace lathe::nn {

// Everything lies and is computed on the weight's device, which nobody waits for. a [r, K] and b [N, r] are of the
// dtype.
class DoraNorms {
 public:
  // The weight, which is kept, as products in `dtype` see it.
  DoraNorms(autograd::LinearWeight weight, DType dtype);

  // [N], in f32 (f64 for f64).
  Tensor norms(const Tensor& a, const Tensor& b, float scaling) const;
  // 1 ÷ norm (0 where that is 0). Computed again, in the same memory, where a or b has changed since: what a graph has
  // captured must not move.
  Tensor inverse(const Tensor& a, const Tensor& b, float scaling) const;
  // What is kept for a linear of so many rows.
  static int64_t bytes(int64_t rows, DType dtype);

 private:
  struct Results {
    Tensor norm, inverse;  // either may be undefined
  };
  void compute(const Results& results, const Tensor& a, const Tensor& b, float scaling) const;

  autograd::LinearWeight weight_;
  Tensor squares_;  // ‖W‖² of each row, in f64
  Tensor inverse_;
  mutable std::mutex mutex_;
  mutable std::optional<std::array<uint64_t, 2>> versions_;  // of a and b, of which inverse_ is; none yet
};

// Rows [first, first + count) of a weight as products in `dtype` see them, in f32 (f64 for f64), on the cpu.
Tensor weight_rows(const kernels::Weight& weight, DType dtype, int64_t first, int64_t count);

}  // namespace lathe::nn
