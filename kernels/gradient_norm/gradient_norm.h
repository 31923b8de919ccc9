// The L2 norm over all gradients, as torch.nn.utils.clip_grad_norm_ takes it.
#pragma once

#include <span>

#include "core/tensor.h"

namespace lathe::kernels {

// Σ x² of a contiguous f32 | bf16 | (on the CPU) f64 tensor in f64: blocks of 4096 elements, each in one order (element
// i of a block joins partial sum i mod 16, then halves are folded onto each other), then the blocks in order. Squares
// of f32 and bf16 are exact in f64, so that the bits are the same with every instruction set and on every device. Waits
// for the device.
double sum_of_squares(const Tensor& x);
// √Σ sum_of_squares over the tensors, which lie on one device, in order. One wait for all of them.
double gradient_norm(std::span<const Tensor> gradients);

}  // namespace lathe::kernels
