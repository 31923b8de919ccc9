#include "autograd/ops/joined_linears.h"

#include "autograd/operation.h"
#include "core/error.h"
#include "kernels/lora_dropout/lora_dropout.h"
#include "kernels/matmul/products.h"

namespace lathe::autograd {
namespace {

using kernels::Layout;

constexpr int x = 0;
int lora_a(int linear) { return 1 + 2 * linear; }
int lora_b(int linear) { return 2 + 2 * linear; }

struct JoinedLinears final : Operation {
  std::vector<LinearWeight> weights;
  std::vector<Tensor> biases;
  std::vector<kernels::DropoutParams> dropout;
  std::vector<int64_t> begins{0};  // columns of t: those of a linear's term from begins[i] to begins[i + 1]
  float scale;
  SequenceLayout layout;

  JoinedLinears(float s, SequenceLayout l) : scale(s), layout(std::move(l)) {}
  std::string_view name() const override { return "linear"; }

  void add(const JoinedLinear& linear) {
    weights.push_back(linear.weight);
    biases.push_back(linear.bias);
    dropout.push_back(linear.dropout);
    begins.push_back(begins.back() + (linear.a.defined() ? linear.a.dim(0) : 0));
  }

  int count() const { return static_cast<int>(weights.size()); }
  bool has_term(int linear) const { return begin_of(linear + 1) > begin_of(linear); }
  // The place of a linear's term among the terms.
  int term_number(int linear) const {
    int number = 0;
    for (int i = 0; i < linear; ++i) number += has_term(i) ? 1 : 0;
    return number;
  }
  int64_t begin_of(int linear) const { return begins[static_cast<size_t>(linear)]; }
  const LinearWeight& weight_of(int linear) const { return weights[static_cast<size_t>(linear)]; }

  // A linear's columns of t or of its gradient.
  Tensor columns(const Tensor& all, int linear) const { return all.slice(1, begin_of(linear), begin_of(linear + 1)); }
  Tensor empty_columns(const Tensor& like) const {
    return Tensor::empty({like.dim(0), begins.back()}, like.dtype(), like.device());
  }

  const kernels::DropoutParams& dropout_of(int linear) const { return dropout[static_cast<size_t>(linear)]; }
  bool drops() const {
    for (int i = 0; i < count(); ++i)
      if (has_term(i) && dropout_of(i).probability != 0.0f) return true;
    return false;
  }
  kernels::DroppedSequences sequences() const { return {layout.cu_seqlens, layout.sample_numbers}; }

  // t of all terms.
  Tensor through_a(Forward& f) const {
    const Tensor& in = f.input(x);
    const Tensor t = empty_columns(in);
    std::vector<Tensor> factors;
    std::vector<kernels::DroppedShrink> shrinks;
    for (int i = 0; i < count(); ++i) {
      if (!has_term(i)) continue;
      factors.push_back(f.input(lora_a(i)));
      shrinks.push_back({columns(t, i), factors.back(), dropout_of(i)});
    }
    if (drops()) {
      kernels::dropped_shrink(in, shrinks, scale, sequences());
    } else {
      kernels::matmul(t, in, rows_together(factors), Layout::transposed, scale);
    }
    return t;
  }

  void forward(Forward& f) {
    const Tensor& in = f.input(x);
    const Tensor t = through_a(f);
    std::vector<kernels::LinearProduct> products;
    for (int i = 0; i < count(); ++i) {
      kernels::LinearProduct& product = products.emplace_back(
          kernels::LinearProduct{Tensor::empty({in.dim(0), weight_of(i).rows()}, in.dtype(), in.device()),
                                 weight_of(i).value(),
                                 {.bias = biases[static_cast<size_t>(i)]}});
      if (!has_term(i)) continue;
      product.terms.lora_t = columns(t, i);
      product.terms.lora_b = f.input(lora_b(i));
    }
    kernels::linear_forward_each(in, products);
    save(f, t);
    for (kernels::LinearProduct& product : products) f.output(std::move(product.out));
  }

  // What any term needs is saved for all, so that the index-th of a name belongs to the index-th term.
  void save(Forward& f, const Tensor& t) const {
    bool needs_a = false, needs_b = false;
    for (int i = 0; i < count(); ++i) {
      needs_a |= f.needs(lora_a(i));
      needs_b |= f.needs(lora_b(i));
    }
    if (needs_a) f.save_input("x", x);
    if (needs_b) f.save("t", t);
    for (int i = 0; i < count(); ++i) {
      if (f.needs(x)) f.save("weight", weight_of(i).versioned());
      if (!has_term(i)) continue;
      if (f.needs(x)) f.save("lora_a", f.input(lora_a(i)));
      if (f.needs(x) || needs_a) f.save("lora_b", f.input(lora_b(i)));
    }
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const auto flows = [&](int i) { return grad_outputs[static_cast<size_t>(i)].defined(); };
    Tensor dt;
    for (int i = count() - 1; i >= 0; --i) {
      if (!flows(i) || !has_term(i)) continue;
      const Tensor& grad_out = grad_outputs[static_cast<size_t>(i)];
      if (saved.has("lora_b")) {
        if (!dt.defined()) dt = empty_columns(grad_out);
        kernels::matmul(columns(dt, i), grad_out, saved.at("lora_b", term_number(i)), Layout::plain, scale);
      }
      if (grads.needed(lora_b(i)))
        weight_gradient(grads.accumulator(lora_b(i)), grad_out, columns(saved["t"], i), grad_out.dim(0));
    }
    factor_gradients(saved, flows, dt, grads);
    if (!grads.needed(x)) return;
    for (int i = count() - 1; i >= 0; --i) {
      if (!flows(i)) continue;
      const auto [grad_x, accumulate] = grads.target(x);  // asked for each, as by linears one after another
      const Tensor through = has_term(i) ? columns(dt, i) : Tensor();
      const Tensor a = has_term(i) ? saved.at("lora_a", term_number(i)) : Tensor();
      const bool inside = !drops();
      kernels::linear_input_gradient({.grad_x = grad_x,
                                      .grad_out = grad_outputs[static_cast<size_t>(i)],
                                      .weight = weight_of(i).value(),
                                      .lora_dt = inside ? through : Tensor(),
                                      .lora_a = inside ? a : Tensor(),
                                      .accumulate = accumulate});
      if (!inside && has_term(i)) kernels::dropped_input_gradient({grad_x, through, a, dropout_of(i)}, sequences());
    }
  }

  // Of all A whose outputs gradients flow to.
  template <class Flows>
  void factor_gradients(Saved& saved, const Flows& flows, const Tensor& dt, InputGradients& grads) const {
    std::vector<int> linears;
    std::vector<Tensor> gradients;
    std::vector<kernels::DroppedGradient> dropped;
    bool all = true;
    for (int i = 0; i < count(); ++i) {
      if (!has_term(i)) continue;
      if (!flows(i) || !grads.needed(lora_a(i))) {
        all = false;
        continue;
      }
      linears.push_back(i);
      gradients.push_back(grads.accumulator(lora_a(i)));
      if (drops()) dropped.push_back({gradients.back(), columns(dt, i), dropout_of(i)});
    }
    if (!dropped.empty()) return kernels::dropped_factor_gradients(saved["x"], dropped, sequences());
    const Tensor together = all ? rows_together(gradients) : Tensor();
    if (together.defined()) return weight_gradient(together, dt, saved["x"], dt.dim(0));
    for (size_t g = 0; g < gradients.size(); ++g)
      weight_gradient(gradients[g], columns(dt, linears[g]), saved["x"], dt.dim(0));
  }

  void weight_gradient(const Tensor& gradient, const Tensor& grad_out, const Tensor& input, int64_t rows) const {
    kernels::linear_weight_gradient(gradient, grad_out, input, layout.bounds_of_rows(rows));
  }
};

}  // namespace

Tensor rows_together(std::span<const Tensor> matrices) {
  if (matrices.empty()) return {};
  const Tensor& first = matrices[0];
  int64_t rows = 0, bytes = 0;
  for (const Tensor& matrix : matrices) {
    if (matrix.storage() != first.storage() || matrix.byte_offset() != first.byte_offset() + bytes ||
        matrix.dtype() != first.dtype() || matrix.dim(1) != first.dim(1) || !matrix.is_contiguous())
      return {};
    rows += matrix.dim(0);
    bytes += matrix.nbytes();
  }
  return Tensor::from_storage(first.storage(), first.byte_offset(), {rows, first.dim(1)}, first.dtype());
}

std::vector<Variable> joined_linears(const Variable& x, std::span<const JoinedLinear> linears, float scale,
                                     const SequenceLayout& layout) {
  JoinedLinears operation(scale, layout);
  std::vector<Variable> inputs{x};
  std::vector<Tensor> factors;
  for (const JoinedLinear& linear : linears) {
    operation.add(linear);
    inputs.push_back(linear.a);
    inputs.push_back(linear.b);
    if (linear.a.defined()) factors.push_back(linear.a.value());
  }
  if (!operation.drops() && !rows_together(factors).defined())
    throw ShapeError("joined_linears: the A factors expect to lie one below the other in one storage");
  return apply(std::move(operation), std::span<const Variable>(inputs)).all();
}

}  // namespace lathe::autograd
