#include "autograd/ops/arithmetic.h"

#include "autograd/operation.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"

namespace lathe::autograd {
namespace {

struct Add final : Operation {
  double factor;
  explicit Add(double f) : factor(f) {}
  std::string_view name() const override { return "add"; }

  void forward(Forward& f) {
    Tensor out = empty_like(f.input(0));
    kernels::add(out, f.input(0), f.input(1), factor);
    f.output(out);
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    if (grads.needed(1)) {
      Tensor grad_b = grad_outputs[0];
      if (factor != 1.0) {
        grad_b = empty_like(grad_b);
        kernels::scale(grad_b, grad_outputs[0], factor);
      }
      grads.add(1, std::move(grad_b));
    }
    grads.add(0, grad_outputs[0]);
  }
};

struct Scale final : Operation {
  double factor;
  explicit Scale(double f) : factor(f) {}
  std::string_view name() const override { return "scale"; }

  void forward(Forward& f) {
    Tensor out = empty_like(f.input(0));
    kernels::scale(out, f.input(0), factor);
    f.output(out);
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    Tensor grad_x = in_place_or_fresh(grad_outputs[0]);
    kernels::scale(grad_x, grad_outputs[0], factor);
    grads.add(0, std::move(grad_x));
  }
};

struct Cast final : Operation {
  DType to, from = DType::f32;
  explicit Cast(DType dtype) : to(dtype) {}
  std::string_view name() const override { return "cast"; }

  void forward(Forward& f) {
    from = f.input(0).dtype();
    f.output(kernels::cast(f.input(0), to));
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    grads.add(0, kernels::cast(grad_outputs[0], from));
  }
};

struct Sum final : Operation {
  Shape shape;
  DType dtype = DType::f32;
  std::string_view name() const override { return "sum"; }

  void forward(Forward& f) {
    const Tensor& x = f.input(0);
    shape = x.shape();
    dtype = x.dtype();
    const Tensor ones = Tensor::empty({1, x.numel()}, dtype, x.device());
    kernels::fill(ones, 1.0);
    Tensor out = Tensor::empty({1}, dtype == DType::f64 ? DType::f64 : DType::f32, x.device());
    kernels::linear_forward(out.view({1, 1}), x.view({1, x.numel()}), ones);
    f.output(out);
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& g = grad_outputs[0];
    Tensor grad_x = Tensor::empty(shape, dtype, g.device());
    const Tensor one = kernels::moved(g, {});
    kernels::fill(grad_x, dtype == DType::f64 ? *one.data<double>() : *one.data<float>());
    grads.add(0, std::move(grad_x));
  }
};

}  // namespace

Variable add(const Variable& a, const Variable& b, double factor) { return apply(Add(factor), {a, b}); }
Variable scale(const Variable& x, double factor) { return apply(Scale(factor), {x}); }
Variable cast(const Variable& x, DType dtype) { return x.dtype() == dtype ? x : Variable(apply(Cast(dtype), {x})); }
Variable sum(const Variable& x) { return apply(Sum(), {x}); }

}  // namespace lathe::autograd
