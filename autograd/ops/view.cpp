#include "autograd/ops/view.h"

#include <algorithm>
#include <numeric>

#include "autograd/operation.h"
#include "core/error.h"
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

struct SplitColumns final : Operation {
  std::vector<int64_t> widths;
  Shape from;
  explicit SplitColumns(std::vector<int64_t> w) : widths(std::move(w)) {}
  std::string_view name() const override { return "split_columns"; }

  void forward(Forward& f) {
    const Tensor& x = f.input(0);
    from = x.shape();
    if (std::accumulate(widths.begin(), widths.end(), int64_t{0}) != from[1])
      throw ShapeError("split_columns: the widths do not add up to the columns of " + describe(x));
    int64_t column = 0;
    for (const int64_t width : widths) {
      Tensor part = Tensor::empty({from[0], width}, x.dtype(), x.device());
      kernels::copy(part, x.slice(1, column, column + width));
      column += width;
      f.output(part);
    }
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& any = *std::find_if(grad_outputs.begin(), grad_outputs.end(),
                                      [](const Tensor& gradient) { return gradient.defined(); });
    const Tensor grad_x = Tensor::empty(from, any.dtype(), any.device());
    int64_t column = 0;
    for (size_t i = 0; i < widths.size(); ++i) {
      const Tensor part = grad_x.slice(1, column, column + widths[i]);
      column += widths[i];
      if (grad_outputs[i].defined()) {
        kernels::copy(part, grad_outputs[i]);
      } else {
        kernels::fill(part, 0.0);
      }
    }
    grads.add(0, grad_x);
  }
};

struct JoinColumns final : Operation {
  std::vector<int64_t> widths;
  explicit JoinColumns(std::vector<int64_t> w) : widths(std::move(w)) {}
  std::string_view name() const override { return "join_columns"; }

  // visitor(part, its number, its columns in `whole`)
  template <class Visitor>
  void for_each_part(const Tensor& whole, const Visitor& visitor) const {
    int64_t column = 0;
    for (size_t i = 0; i < widths.size(); ++i) {
      visitor(static_cast<int>(i), whole.slice(1, column, column + widths[i]));
      column += widths[i];
    }
  }

  void forward(Forward& f) {
    const Tensor& first = f.input(0);
    const int64_t columns = std::accumulate(widths.begin(), widths.end(), int64_t{0});
    const Tensor joined = Tensor::empty({first.dim(0), columns}, first.dtype(), first.device());
    for_each_part(joined, [&f](int i, const Tensor& place) { kernels::copy(place, f.input(i)); });
    f.output(joined);
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    for_each_part(grad_outputs[0], [&grads](int i, const Tensor& place) {
      if (!grads.needed(i)) return;
      const Tensor part = Tensor::empty(place.shape(), place.dtype(), place.device());
      kernels::copy(part, place);
      grads.add(i, part);
    });
  }
};

}  // namespace

Variable view(const Variable& x, const Shape& shape) {
  if (!x.requires_grad()) return Variable(x.value().view(shape));  // a decode step makes four a layer
  return apply(View(shape), {x});
}
Variable slice(const Variable& x, int dimension, int64_t begin, int64_t end) {
  return apply(Slice(dimension, begin, end), {x});
}
std::vector<Variable> split_columns(const Variable& x, const std::vector<int64_t>& widths) {
  return apply(SplitColumns(widths), {x}).all();
}
std::vector<Variable> split_heads(const Variable& x, int64_t heads, const std::vector<int64_t>& widths) {
  const int64_t tokens = x.dim(0);
  std::vector<Variable> parts = split_columns(view(x, {tokens * heads, x.dim(1) / heads}), widths);
  for (Variable& part : parts) part = view(part, {tokens, heads * part.dim(1)});
  return parts;
}
Variable join_columns(const std::vector<Variable>& parts) {
  std::vector<int64_t> widths;
  for (const Variable& part : parts) widths.push_back(part.dim(1));
  return apply(JoinColumns(std::move(widths)), std::span<const Variable>(parts));
}

}  // namespace lathe::autograd
