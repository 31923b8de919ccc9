// The L2 norm over all gradients, as torch.nn.utils.clip_grad_norm_ takes it.
#pragma once

#include <span>

#include "core/tensor.h"

namespace lathe::kernels {

// Σ x² of a contiguous f32 | bf16 | f64 tensor in f64: blocks of 4096 elements in index order, then the blocks in order.
double sum_of_squares(const Tensor& x);
// √Σ sum_of_squares over the tensors in order.
double gradient_norm(std::span<const Tensor> gradients);

}  // namespace lathe::kernels
