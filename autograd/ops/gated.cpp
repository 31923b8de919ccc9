#include "autograd/ops/gated.h"

#include "autograd/operation.h"
#include "kernels/gated/gated.h"

namespace lathe::autograd {
namespace {

struct Kind {
  std::string_view name;
  void (*forward)(const Tensor& out, const Tensor& gate, const Tensor& up);
  void (*backward)(const Tensor& grad_gate, const Tensor& grad_up, const Tensor& grad_out, const Tensor& gate,
                   const Tensor& up);
};
constexpr Kind swiglu_kind{"swiglu", kernels::swiglu_forward, kernels::swiglu_backward};
constexpr Kind geglu_kind{"geglu", kernels::geglu_forward, kernels::geglu_backward};
constexpr Kind clamped_swiglu_kind{"clamped_swiglu", kernels::clamped_swiglu_forward, kernels::clamped_swiglu_backward};
constexpr Kind glu_kind{"glu", kernels::glu_forward, kernels::glu_backward};

struct Gated final : Operation {
  Kind kind;
  explicit Gated(Kind k) : kind(k) {}
  std::string_view name() const override { return kind.name; }

  void forward(Forward& f) {
    Tensor out = empty_like(f.input(0));
    kind.forward(out, f.input(0), f.input(1));
    f.save("gate", f.input(0));
    f.save("up", f.input(1));
    f.output(out);
  }

  // The gradients take the place of gate and up, which nobody needs after this, where nobody else holds them.
  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor gate = saved.take("gate"), up = saved.take("up");
    Tensor grad_gate = in_place_or_fresh(gate), grad_up = in_place_or_fresh(up);
    kind.backward(grad_gate, grad_up, grad_outputs[0], gate, up);
    grads.add(0, std::move(grad_gate));
    grads.add(1, std::move(grad_up));
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(Saved& saved) override {
    Tensor out = empty_like(saved["gate"]);
    kind.forward(out, saved["gate"], saved["up"]);
    return out;
  }
};

// gate and up are the halves of one input.
struct GatedHalves final : Operation {
  Kind kind;
  explicit GatedHalves(Kind k) : kind(k) {}
  std::string_view name() const override { return kind.name; }

  static Tensor half(const Tensor& both, int index) {
    const int64_t width = both.dim(1) / 2;
    return both.slice(1, index * width, (index + 1) * width);
  }

  Tensor product(const Tensor& both) const {
    Tensor out = Tensor::empty({both.dim(0), both.dim(1) / 2}, both.dtype(), both.device());
    kind.forward(out, half(both, 0), half(both, 1));
    return out;
  }

  void forward(Forward& f) {
    f.save("gate_up", f.input(0));
    f.output(product(f.input(0)));
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor both = saved.take("gate_up");
    Tensor grad = in_place_or_fresh(both);
    kind.backward(half(grad, 0), half(grad, 1), grad_outputs[0], half(both, 0), half(both, 1));
    grads.add(0, std::move(grad));
  }

  bool can_recompute() const override { return true; }
  Tensor recompute(Saved& saved) override { return product(saved["gate_up"]); }
};

}  // namespace

Variable swiglu(const Variable& gate, const Variable& up) { return apply(Gated(swiglu_kind), {gate, up}); }
Variable swiglu(const Variable& gate_up) { return apply(GatedHalves(swiglu_kind), {gate_up}); }
Variable geglu(const Variable& gate, const Variable& up) { return apply(Gated(geglu_kind), {gate, up}); }
Variable clamped_swiglu(const Variable& gate, const Variable& up) {
  return apply(Gated(clamped_swiglu_kind), {gate, up});
}
Variable glu(const Variable& gate, const Variable& up) { return apply(Gated(glu_kind), {gate, up}); }
Variable geglu(const Variable& gate_up) { return apply(GatedHalves(geglu_kind), {gate_up}); }

}  // namespace lathe::autograd
