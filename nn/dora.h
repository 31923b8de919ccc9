// The norms of DoRA (Liu et al. 2024): ‖W + s·B·A‖ of each row of a linear, without ever making that matrix.
#pragma once

#include <cstdint>
#include <mutex>

#include "autograd/ops/linear.h"

namespace lathe::nn {

// ‖W + s·B·A‖² = ‖W‖² + 2s·B·(A·Wᵀ) + s²·B·(A·Aᵀ)·Bᵀ, of each row, in f64 from f32 products (f64 for f64). A row of
// zeros has the norm 0.
class DoraNorms {
 public:
  // The weight, which is kept, as products in `dtype` see it.
  DoraNorms(autograd::LinearWeight weight, DType dtype);

  // [N], on the cpu, in f32 (f64 for f64). a [r, K] and b [N, r] of the dtype, on the weight's device.
  Tensor norms(const Tensor& a, const Tensor& b, float scaling) const;
  // 1 ÷ norm (0 where that is 0), on the weight's device. Computed again where a or b has changed since.
  Tensor inverse(const Tensor& a, const Tensor& b, float scaling) const;

 private:
  autograd::LinearWeight weight_;
  std::vector<double> squares_;  // ‖W‖²
  mutable std::mutex mutex_;
  mutable uint64_t a_version_ = 0, b_version_ = 0;
  mutable Tensor inverse_;
};

// Rows [first, first + count) of a weight as products in `dtype` see them, in f32 (f64 for f64), on the cpu.
Tensor weight_rows(const kernels::Weight& weight, DType dtype, int64_t first, int64_t count);

}  // namespace lathe::nn
