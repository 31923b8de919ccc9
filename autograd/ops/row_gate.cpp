#include "autograd/ops/row_gate.h"

#include "autograd/operation.h"
#include "kernels/row_gate/row_gate.h"

namespace lathe::autograd {
namespace {

struct RowGate final : Operation {
  std::string_view name() const override { return "row_gate"; }

  void forward(Forward& f) {
    const Tensor out = empty_like(f.input(1));
    kernels::row_gate_forward(out, f.input(0), f.input(1), f.input(2));
    f.save("gate", f.input(0));
    f.save("x", f.input(1));
    f.output(out);
  }

  // grad_x takes the place of x, which nobody needs after this, where nobody else holds it.
  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor x = saved.take("x");
    Tensor grad_gate = empty_like(saved["gate"]), grad_x = in_place_or_fresh(x);
    kernels::row_gate_backward(grad_gate, grad_x, grad_outputs[0], saved["gate"], x);
    grads.add(0, std::move(grad_gate));
    grads.add(1, std::move(grad_x));
    grads.add(2, grad_outputs[0]);
  }
};

}  // namespace

Variable row_gate(const Variable& gate, const Variable& x, const Variable& residual) {
  return apply(RowGate(), {gate, x, residual});
}

}  // namespace lathe::autograd
