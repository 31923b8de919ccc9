#include "autograd/ops/linear.h"

#include "autograd/operation.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {
namespace {

using kernels::Layout;

enum Input : int { x, weight, bias, residual, lora_a, lora_b };

struct Linear final : Operation {
  LinearWeight base;
  SequenceLayout layout;
  float lora_scale = 1.0f;
  kernels::DropoutParams dropout;

  Linear(LinearWeight w, SequenceLayout l) : base(std::move(w)), layout(std::move(l)) {}
  std::string_view name() const override { return "linear"; }

  // The input of the adapter: the same in the forward and, computed again, in the backward.
  Tensor dropped(const Tensor& input) const {
    if (dropout.probability == 0.0f) return input;
    Tensor result = empty_like(input);
    kernels::dropout(result, input, layout.cu_seqlens, layout.sample_numbers, dropout);
    return result;
  }

  void forward(Forward& f) {
    const Tensor& in = f.input(x);
    kernels::LinearTerms terms{.lora_b = f.input(lora_b), .bias = f.input(bias), .residual = f.input(residual)};
    if (f.input(lora_a).defined()) {
      terms.lora_t = Tensor::empty({in.dim(0), f.input(lora_a).dim(0)}, in.dtype(), in.device());
      kernels::matmul(terms.lora_t, dropped(in), f.input(lora_a), Layout::transposed, lora_scale);
    }
    Tensor out = Tensor::empty({in.dim(0), base.rows()}, in.dtype(), in.device());
    kernels::linear_forward(out, in, base.view(), terms);

    if (f.needs(weight) || f.needs(lora_a)) f.save_input("x", x);
    if (f.needs(lora_b)) f.save("t", terms.lora_t);
    if (f.needs(x)) {
      // So that a change of it is noticed; the codes of a quantised one have no way to change.
      f.save("weight", base.packed().defined() ? base.packed().panels() : f.input(weight));
      f.save("lora_a", f.input(lora_a));
    }
    if (f.needs(x) || f.needs(lora_a)) f.save("lora_b", f.input(lora_b));
    f.output(out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& grad_out = grad_outputs[0];
    Tensor dt;
    if (saved.has("lora_b")) {
      const Tensor& b = saved["lora_b"];
      dt = Tensor::empty({grad_out.dim(0), b.dim(1)}, grad_out.dtype(), grad_out.device());
      kernels::matmul(dt, grad_out, b, Layout::plain, lora_scale);
    }
    if (grads.needed(lora_b)) weight_gradient(grads.accumulator(lora_b), grad_out, saved["t"]);
    if (grads.needed(lora_a)) weight_gradient(grads.accumulator(lora_a), dt, dropped(saved["x"]));
    if (grads.needed(weight)) weight_gradient(grads.accumulator(weight), grad_out, saved["x"]);
    if (grads.needed(bias)) {  // the weight gradient of a column of ones
      const Tensor ones = Tensor::empty({grad_out.dim(0), 1}, grad_out.dtype(), grad_out.device());
      kernels::fill(ones, 1.0);
      weight_gradient(grads.accumulator(bias).view({grad_out.dim(1), 1}), grad_out, ones);
    }
    if (grads.needed(x)) input_gradient(saved, grad_out, dt, grads);
    grads.add(residual, grad_out);
  }

  void weight_gradient(const Tensor& gradient, const Tensor& grad_out, const Tensor& input) const {
    kernels::linear_weight_gradient(gradient, grad_out, input, layout.bounds_of_rows(input.dim(0)));
  }

  void input_gradient(Saved& saved, const Tensor& grad_out, const Tensor& dt, InputGradients& grads) const {
    const auto [grad_x, accumulate] = grads.target(x);
    if (!dt.defined() || dropout.probability == 0.0f) {
      const Tensor a = dt.defined() ? saved["lora_a"] : Tensor();
      kernels::linear_input_gradient(grad_x, grad_out, base.view(), dt, a, accumulate);
      return;
    }
    kernels::linear_input_gradient(grad_x, grad_out, base.view(), {}, {}, accumulate);
    Tensor through_adapter = empty_like(grad_x);
    kernels::matmul(through_adapter, dt, saved["lora_a"], Layout::plain);
    kernels::dropout(through_adapter, through_adapter, layout.cu_seqlens, layout.sample_numbers, dropout);
    kernels::add(grad_x, grad_x, through_adapter);
  }
};

}  // namespace

Variable linear(const Variable& x, const LinearWeight& weight, const SequenceLayout& layout, const LinearTerms& terms) {
  Linear operation(weight, layout);
  if (!terms.lora) return apply(std::move(operation), {x, weight.dense(), terms.bias, terms.residual, {}, {}});
  operation.lora_scale = terms.lora->scale;
  operation.dropout = terms.lora->dropout;
  return apply(std::move(operation), {x, weight.dense(), terms.bias, terms.residual, terms.lora->a, terms.lora->b});
}

}  // namespace lathe::autograd
