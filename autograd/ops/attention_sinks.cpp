#include "autograd/ops/attention_sinks.h"

#include "autograd/node.h"
#include "kernels/attention_sinks/attention_sinks.h"
#include "kernels/column_scale/column_scale.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {

Tensor lse_of_attention(const Tensor& q, const Tensor& sinks, bool recording) {
  if (!recording && !sinks.defined()) return {};
  return Tensor::empty({q.dim(1), q.dim(0)}, accumulation_dtype(q.dtype()), q.device());
}

Tensor add_sinks(const Tensor& out, const Tensor& lse, const Tensor& sinks, bool recording) {
  if (!sinks.defined()) return lse;
  const Tensor with_sinks = recording ? empty_like(lse) : Tensor();
  kernels::attention_sinks(out, with_sinks, out, lse, sinks);
  return with_sinks;
}

void accumulate_sink_gradient(const Tensor& grad_sinks, const Tensor& grad_out, const Tensor& out, const Tensor& lse,
                              const Tensor& sinks, const Tensor& cu_seqlens) {
  const Tensor dots = Tensor::empty({out.dim(0), out.dim(1)}, lse.dtype(), out.device(), MemoryTag::workspace);
  const Tensor shares = empty_like(dots);
  const Tensor minus = Tensor::empty({out.dim(1)}, lse.dtype(), out.device(), MemoryTag::workspace);
  kernels::attention_sinks_backward(dots, shares, grad_out, out, lse, sinks);
  kernels::fill(minus, -1.0);
  kernels::column_scale_gradient(grad_sinks, dots, shares, minus, cu_seqlens);
}

}  // namespace lathe::autograd
