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

struct ClipParams {
  double max_norm = 0.0;    // of the loss's gradients; 0: they stay as long as they are
  double loss_scale = 1.0;  // the gradients are so many times the loss's
};
// clip f64 [2], on the device of the gradients and of `watched`, becomes
//   norm    gradient_norm(gradients) / loss_scale
//   factor  min(1, max_norm / (norm + 1e-6)) / loss_scale, or 1 / loss_scale without a max_norm
// from where an optimiser takes its factor (adamw.h): a device is not waited for. It is NaN, with which an optimiser
// changes nothing, where the norm or an element of `watched` (dtypes as above) is not finite.
void clip_factor(const Tensor& clip, std::span<const Tensor> gradients, std::span<const Tensor> watched,
                 const ClipParams& params);

}  // namespace lathe::kernels
