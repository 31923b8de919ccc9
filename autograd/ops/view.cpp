#include "autograd/ops/view.h"

#include "autograd/operation.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {
namespace {

struct View final : Operation {
  Shape to, from;
  explicit View(const Shape& shape) : to(shape) {}
  std::string_view name() const override { return "view"; }

  void forward(Forward& f) {
    from = f.input(0).shape();
    f.output(f.input(0).view(to));
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    grads.add(0, grad_outputs[0].view(from));
  }
};

struct Slice final : Operation {
  int dimension;
  int64_t begin, end;
  Shape from;
  Slice(int d, int64_t b, int64_t e) : dimension(d), begin(b), end(e) {}
  std::string_view name() const override { return "slice"; }

  void forward(Forward& f) {
    from = f.input(0).shape();
    f.output(f.input(0).slice(dimension, begin, end));
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& grad_out = grad_outputs[0];
    Tensor grad_x = Tensor::zeros(from, grad_out.dtype(), grad_out.device());
    kernels::copy(grad_x.slice(dimension, begin, end), grad_out);
    grads.add(0, std::move(grad_x));
  }
};

}  // namespace

Variable view(const Variable& x, const Shape& shape) { return apply(View(shape), {x}); }
Variable slice(const Variable& x, int dimension, int64_t begin, int64_t end) {
  return apply(Slice(dimension, begin, end), {x});
}

}  // namespace lathe::autograd
