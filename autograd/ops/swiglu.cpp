#include "autograd/ops/swiglu.h"

#include "autograd/operation.h"
#include "kernels/swiglu/swiglu.h"

namespace lathe::autograd {
namespace {

struct Swiglu final : Operation {
  std::string_view name() const override { return "swiglu"; }

  void forward(Forward& f) {
    Tensor out = empty_like(f.input(0));
    kernels::swiglu_forward(out, f.input(0), f.input(1));
    f.save("gate", f.input(0));
    f.save("up", f.input(1));
    f.output(out);
  }

  // The gradients take the place of gate and up, which nobody needs after this, where nobody else holds them.
  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor gate = saved.take("gate"), up = saved.take("up");
    Tensor grad_gate = in_place_or_fresh(gate), grad_up = in_place_or_fresh(up);
    kernels::swiglu_backward(grad_gate, grad_up, grad_outputs[0], gate, up);
    grads.add(0, std::move(grad_gate));
    grads.add(1, std::move(grad_up));
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(Saved& saved) override {
    Tensor out = empty_like(saved["gate"]);
    kernels::swiglu_forward(out, saved["gate"], saved["up"]);
    return out;
  }
};

// gate and up are the halves of one input.
struct SwigluHalves final : Operation {
  std::string_view name() const override { return "swiglu"; }

  static Tensor half(const Tensor& both, int index) {
    const int64_t width = both.dim(1) / 2;
    return both.slice(1, index * width, (index + 1) * width);
  }

  static Tensor product(const Tensor& both) {
    Tensor out = Tensor::empty({both.dim(0), both.dim(1) / 2}, both.dtype(), both.device());
    kernels::swiglu_forward(out, half(both, 0), half(both, 1));
    return out;
  }

  void forward(Forward& f) {
    f.save("gate_up", f.input(0));
    f.output(product(f.input(0)));
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor both = saved.take("gate_up");
    Tensor grad = in_place_or_fresh(both);
    kernels::swiglu_backward(half(grad, 0), half(grad, 1), grad_outputs[0], half(both, 0), half(both, 1));
    grads.add(0, std::move(grad));
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(Saved& saved) override { return product(saved["gate_up"]); }
};

}  // namespace

Variable swiglu(const Variable& gate, const Variable& up) { return apply(Swiglu(), {gate, up}); }
Variable swiglu(const Variable& gate_up) { return apply(SwigluHalves(), {gate_up}); }

}  // namespace lathe::autograd
