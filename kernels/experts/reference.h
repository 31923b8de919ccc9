// The plain bodies in double; arguments as in experts.h.
#pragma once

#include "kernels/experts/experts.h"

namespace lathe::kernels::reference {

void choose_experts(const Tensor& weights, const Tensor& chosen, const Tensor& logits, const ExpertRule& rule);
void choose_experts_backward(const Tensor& grad_logits, const Tensor& grad_weights, const Tensor& logits,
                             const Tensor& weights, const Tensor& chosen, const ExpertRule& rule);
void combine_experts(const Tensor& out, const Tensor& rows, const Tensor& slots, const Tensor& weights,
                     const Tensor& residual);
void combine_experts_backward(const Tensor& grad_rows, const Tensor& grad_weights, const Tensor& grad_out,
                              const Tensor& rows, const Tensor& slots, const Tensor& weights);

}  // namespace lathe::kernels::reference
