#include "autograd/ops/linear.h"

#include <algorithm>
#include <string>

#include "autograd/operation.h"
#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/column_scale/column_scale.h"
#include "kernels/copy/copy.h"
#include "kernels/lora_dropout/lora_dropout.h"

namespace lathe::autograd {
namespace {

using kernels::Layout;

enum Input : int { x, weight, bias, residual, first_lora };  // then a, b and magnitude of each term
int lora_a(int term) { return first_lora + 3 * term; }
int lora_b(int term) { return first_lora + 3 * term + 1; }
int magnitude(int term) { return first_lora + 3 * term + 2; }

constexpr int no_term = -1;

// Rows [begin, end), which have one LoRA term or none.
struct RowRun {
  int64_t begin, end;
  int term;

  // These rows of a tensor that has all of them, or is undefined.
  Tensor of(const Tensor& all) const {
    return all.defined() && all.dim(0) != end - begin ? all.slice(0, begin, end) : all;
  }
};

struct Linear final : Operation {
  struct Term {
    float scale;
    kernels::DropoutParams dropout;
    SequenceLayout layout;  // of its rows
    Tensor inverse_norm;    // DoRA
    Tensor joined_a, joined_b;
    bool dora() const { return inverse_norm.defined(); }
    bool drops() const { return dropout.probability != 0.0f; }
    kernels::DroppedSequences sequences() const { return {layout.cu_seqlens, layout.sample_numbers}; }
  };
  LinearWeight base;
  SequenceLayout layout;
  std::vector<Term> terms;
  std::vector<RowRun> runs;  // every row once, ascending

  Linear(LinearWeight w, SequenceLayout l) : base(std::move(w)), layout(std::move(l)) {}
  std::string_view name() const override { return "linear"; }

  static Term held(const LoraTerm& term, const SequenceLayout& layout) {
    return {term.scale, term.dropout, layout, term.inverse_norm, term.joined_a, term.joined_b};
  }

  void add_term(const LoraTerm& term, int64_t rows) {
    const int index = static_cast<int>(terms.size());
    if (!term.sequences) {
      terms.push_back(held(term, layout));
      return add_run(0, rows, index);
    }
    if (rows != layout.tokens())
      throw ShapeError("linear: a LoRA term for some sequences of a layout of " + std::to_string(layout.tokens()) +
                       " tokens, but x has " + std::to_string(rows) + " rows");
    terms.push_back(held(term, term.sequences->layout));
    add_run(term.sequences->first_token, term.sequences->end_token(), index);
  }

  // After the last run; the rows that it leaves out have the base weight alone.
  void add_run(int64_t begin, int64_t end, int term) {
    const int64_t done = runs.empty() ? 0 : runs.back().end;
    if (begin < done)
      throw ShapeError("linear: a LoRA term for rows from " + std::to_string(begin) + ", but those before " +
                       std::to_string(done) + " have theirs already");
    if (begin > done) runs.push_back({done, begin, no_term});
    runs.push_back({begin, end, term});
  }

  // The rest has the base weight alone.
  void end_runs(int64_t rows) {
    const int64_t done = runs.empty() ? 0 : runs.back().end;
    if (done > rows)
      throw ShapeError("linear: a LoRA term for rows up to " + std::to_string(done) + " of " + std::to_string(rows));
    if (done < rows || runs.empty()) runs.push_back({done, rows, no_term});
  }

  // The input of DoRA's product: the same in the forward and, computed again, in the backward.
  static Tensor dropped(const Tensor& input, const Term& term) {
    if (!term.drops()) return input;
    Tensor result = empty_like(input);
    drop(result, input, term);
    return result;
  }
  static void drop(const Tensor& out, const Tensor& in, const Term& term) {
    kernels::dropout(out, in, term.layout.cu_seqlens, term.layout.sample_numbers, term.dropout);
  }

  const Term& term_of(const RowRun& run) const { return terms[static_cast<size_t>(run.term)]; }

  // What the products of a term read.
  const Tensor& factor_a(Forward& f, int term) const {
    const Tensor& joined = terms[static_cast<size_t>(term)].joined_a;
    return joined.defined() ? joined : f.input(lora_a(term));
  }
  const Tensor& factor_b(Forward& f, int term) const {
    const Tensor& joined = terms[static_cast<size_t>(term)].joined_b;
    return joined.defined() ? joined : f.input(lora_b(term));
  }

  void forward(Forward& f) {
    const Tensor& in = f.input(x);
    const std::vector<Tensor> t = through_a(f);
    Tensor out = Tensor::empty({in.dim(0), base.rows()}, in.dtype(), in.device());
    for (auto first = runs.begin(); first != runs.end();) {
      if (is_dora(*first)) {
        dora_forward(f, *first, t[static_cast<size_t>(first->term)], out);
        ++first;
        continue;
      }
      const auto last = std::find_if(first, runs.end(), [&](const RowRun& run) { return is_dora(run); });
      lora_forward(f, {first, last}, t, out);
      first = last;
    }
    save(f, t);
    f.output(out);
  }

  // t of each term.
  std::vector<Tensor> through_a(Forward& f) const {
    const Tensor& in = f.input(x);
    std::vector<Tensor> t(terms.size());
    for (const RowRun& run : runs)
      if (run.term != no_term)
        t[static_cast<size_t>(run.term)] =
            Tensor::empty({run.end - run.begin, factor_a(f, run.term).dim(0)}, in.dtype(), in.device());
    for (const RowRun& run : runs) {
      if (run.term == no_term) continue;
      const Term& term = term_of(run);
      const Tensor &product = t[static_cast<size_t>(run.term)], &a = factor_a(f, run.term);
      if (term.drops()) {
        const kernels::DroppedShrink shrink{product, a, term.dropout};
        kernels::dropped_shrink(run.of(in), {&shrink, 1}, term.scale, term.sequences());
      } else {
        kernels::matmul(product, run.of(in), a, Layout::transposed, term.scale);
      }
    }
    return t;
  }

  bool is_dora(const RowRun& run) const { return run.term != no_term && term_of(run).dora(); }

  // Runs after each other, in one product.
  void lora_forward(Forward& f, std::span<const RowRun> neighbours, const std::vector<Tensor>& t,
                    const Tensor& out) const {
    const RowRun all{neighbours.front().begin, neighbours.back().end, no_term};
    kernels::LinearTerms joined{.bias = f.input(bias), .residual = all.of(f.input(residual))};
    for (const RowRun& run : neighbours) {
      if (run.term == no_term) continue;
      const kernels::Weight b = factor_b(f, run.term);
      const Tensor& product = t[static_cast<size_t>(run.term)];
      if (neighbours.size() == 1) {
        joined.lora_t = product, joined.lora_b = b;
      } else {
        joined.lora_rows.push_back({run.begin - all.begin, run.end - all.begin, product, b});
      }
    }
    kernels::linear_forward(all.of(out), all.of(f.input(x)), base.value(), joined);
  }

  // magnitude ÷ norm.
  static Tensor column_scales(const Tensor& magnitudes, const Term& term) {
    const Shape row{1, magnitudes.numel()};
    Tensor scales = Tensor::empty(row, magnitudes.dtype(), magnitudes.device());
    kernels::column_scale(scales, magnitudes.view(row), term.inverse_norm);
    return scales.view({magnitudes.numel()});
  }

  void dora_forward(Forward& f, const RowRun& run, const Tensor& t, const Tensor& all_out) const {
    const Term& term = term_of(run);
    const Tensor rows = run.of(f.input(x)), kept = dropped(rows, term), out = run.of(all_out);
    const kernels::LinearTerms joined{.bias = f.input(bias), .residual = run.of(f.input(residual))};
    Tensor z = Tensor::empty(out.shape(), out.dtype(), out.device());
    kernels::linear_forward(z, kept, base.value(), {.lora_t = t, .lora_b = f.input(lora_b(run.term))});
    const Tensor scales = column_scales(f.input(magnitude(run.term)), term);
    if (term.drops()) {
      Tensor rest = empty_like(rows);
      kernels::add(rest, rows, kept, -1.0);
      kernels::linear_forward(out, rest, base.value(), joined);
      kernels::column_scale(out, z, scales, {}, out);
    } else {
      kernels::column_scale(out, z, scales, joined.bias, joined.residual);
    }
    if (f.needs(magnitude(run.term))) f.save("z", z);
    f.save("magnitude", f.input(magnitude(run.term)));
  }

  // What any term needs is saved for all, so that the index-th of a name belongs to the index-th term.
  void save(Forward& f, const std::vector<Tensor>& t) const {
    bool needs_a = false, needs_b = false;
    for (int i = 0; i < static_cast<int>(terms.size()); ++i) {
      needs_a |= f.needs(lora_a(i));
      needs_b |= f.needs(lora_b(i));
    }
    if (f.needs(weight) || needs_a) f.save_input("x", x);
    // So that a change of it is noticed; the codes of a quantised one have no way to change.
    if (f.needs(x)) f.save("weight", base.versioned());
    for (int i = 0; i < static_cast<int>(terms.size()); ++i) {
      if (needs_b) f.save("t", t[static_cast<size_t>(i)]);
      if (f.needs(x)) f.save("lora_a", factor_a(f, i));
      if (f.needs(x) || needs_a) f.save("lora_b", factor_b(f, i));
    }
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor& grad_out = grad_outputs[0];
    std::vector<Tensor> dt(terms.size()), dz(terms.size());  // dz: of DoRA's products
    for (const RowRun& run : runs) {
      if (run.term == no_term) continue;
      const auto index = static_cast<size_t>(run.term);
      if (term_of(run).dora()) dz[index] = magnitude_gradients(run, saved, run.of(grad_out), grads);
      dt[index] = lora_gradients(run, saved, dz[index].defined() ? dz[index] : run.of(grad_out), grads);
    }
    if (grads.needed(weight)) weight_gradient(grads.accumulator(weight), grad_out, saved["x"], layout);
    if (grads.needed(bias)) {  // the weight gradient of a column of ones
      const Tensor ones = Tensor::empty({grad_out.dim(0), 1}, grad_out.dtype(), grad_out.device());
      kernels::fill(ones, 1.0);
      weight_gradient(grads.accumulator(bias).view({grad_out.dim(1), 1}), grad_out, ones, layout);
    }
    if (grads.needed(x)) {
      const auto [grad_x, accumulate] = grads.target(x);
      for (const RowRun& run : runs) {
        const Tensor through = run.term == no_term ? Tensor() : dt[static_cast<size_t>(run.term)];
        const Tensor scaled = run.term == no_term ? Tensor() : dz[static_cast<size_t>(run.term)];
        if (scaled.defined()) {
          dora_input_gradient(run, saved, run.of(grad_out), scaled, through, run.of(grad_x), accumulate);
        } else {
          input_gradient(run, saved, run.of(grad_out), through, run.of(grad_x), accumulate);
        }
      }
    }
    grads.add(residual, grad_out);
  }

  // The place among the terms with magnitudes, in whose order "z" and "magnitude" are saved.
  int dora_number(int term) const {
    int number = 0;
    for (int i = 0; i < term; ++i) number += terms[static_cast<size_t>(i)].dora() ? 1 : 0;
    return number;
  }

  // Of a run's own magnitudes. Returns c⊙dy, the gradient of z.
  Tensor magnitude_gradients(const RowRun& run, Saved& saved, const Tensor& grad_out, InputGradients& grads) const {
    const Term& term = term_of(run);
    if (grads.needed(magnitude(run.term)))
      kernels::column_scale_gradient(grads.accumulator(magnitude(run.term)), grad_out,
                                     saved.at("z", dora_number(run.term)), term.inverse_norm, term.layout.cu_seqlens);
    Tensor dz = empty_like(grad_out);
    kernels::column_scale(dz, grad_out, column_scales(saved.at("magnitude", dora_number(run.term)), term));
    return dz;
  }

  // Of a run's own a and b. Returns dt, undefined where nobody needs it.
  Tensor lora_gradients(const RowRun& run, Saved& saved, const Tensor& grad_out, InputGradients& grads) const {
    const Term& term = term_of(run);
    Tensor dt;
    if (saved.has("lora_b")) {
      const Tensor& b = saved.at("lora_b", run.term);
      dt = Tensor::empty({grad_out.dim(0), b.dim(1)}, grad_out.dtype(), grad_out.device());
      kernels::matmul(dt, grad_out, b, Layout::plain, term.scale);
    }
    if (grads.needed(lora_b(run.term))) {
      const Tensor& gradient = grads.accumulator(lora_b(run.term));
      weight_gradient(gradient, grad_out, trained(saved.at("t", run.term), gradient.dim(1)), term.layout);
    }
    if (grads.needed(lora_a(run.term))) {
      const Tensor& gradient = grads.accumulator(lora_a(run.term));
      const Tensor through = trained(dt, gradient.dim(0)), input = run.of(saved["x"]);
      if (term.drops()) {
        const kernels::DroppedGradient dropped{gradient, through, term.dropout};
        kernels::dropped_factor_gradients(input, {&dropped, 1}, term.sequences());
      } else {
        weight_gradient(gradient, through, input, term.layout);
      }
    }
    return dt;
  }

  // Of [T, r or 2r] the columns of the factors that train.
  static Tensor trained(const Tensor& products, int64_t r) {
    return products.dim(1) == r ? products : products.slice(1, 0, r);
  }

  static void weight_gradient(const Tensor& gradient, const Tensor& grad_out, const Tensor& input,
                              const SequenceLayout& layout) {
    kernels::linear_weight_gradient(gradient, grad_out, input, layout.bounds_of_rows(input.dim(0)));
  }

  void input_gradient(const RowRun& run, Saved& saved, const Tensor& grad_out, const Tensor& dt, const Tensor& grad_x,
                      bool accumulate) const {
    if (!dt.defined() || !term_of(run).drops()) {
      const Tensor a = dt.defined() ? saved.at("lora_a", run.term) : Tensor();
      kernels::linear_input_gradient({.grad_x = grad_x,
                                      .grad_out = grad_out,
                                      .weight = base.value(),
                                      .lora_dt = dt,
                                      .lora_a = a,
                                      .accumulate = accumulate});
      return;
    }
    kernels::linear_input_gradient(
        {.grad_x = grad_x, .grad_out = grad_out, .weight = base.value(), .accumulate = accumulate});
    kernels::dropped_input_gradient({grad_x, dt, saved.at("lora_a", run.term), term_of(run).dropout},
                                    term_of(run).sequences());
  }

  // With what flows through z alone where nothing was dropped.
  void dora_input_gradient(const RowRun& run, Saved& saved, const Tensor& grad_out, const Tensor& dz, const Tensor& dt,
                           const Tensor& grad_x, bool accumulate) const {
    const Tensor& a = saved.at("lora_a", run.term);
    if (!term_of(run).drops()) {
      kernels::linear_input_gradient({.grad_x = grad_x,
                                      .grad_out = dz,
                                      .weight = base.value(),
                                      .lora_dt = dt,
                                      .lora_a = a,
                                      .accumulate = accumulate});
      return;
    }
    kernels::linear_input_gradient(
        {.grad_x = grad_x, .grad_out = grad_out, .weight = base.value(), .accumulate = accumulate});
    kernels::add(dz, dz, grad_out, -1.0);
    Tensor through_kept = empty_like(grad_x);
    kernels::linear_input_gradient(
        {.grad_x = through_kept, .grad_out = dz, .weight = base.value(), .lora_dt = dt, .lora_a = a});
    drop(through_kept, through_kept, term_of(run));
    kernels::add(grad_x, grad_x, through_kept);
  }
};

}  // namespace

Variable linear(const Variable& x, const LinearWeight& weight, const SequenceLayout& layout, const LinearTerms& terms) {
  Linear operation(weight, layout);
  std::vector<Variable> inputs{x, weight.dense(), terms.bias, terms.residual};
  for (const LoraTerm& term : terms.lora) {
    if (term.sequences && term.sequences->layout.tokens() == 0) continue;
    if (term.inverse_norm.defined() && weight.dense().requires_grad())
      throw ShapeError("linear: a weight beside DoRA's magnitudes is frozen, found one that trains");
    operation.add_term(term, x.dim(0));
    inputs.push_back(term.a);
    inputs.push_back(term.b);
    inputs.push_back(term.magnitude);
  }
  operation.end_runs(x.dim(0));
  return apply(std::move(operation), std::span<const Variable>(inputs));
}

}  // namespace lathe::autograd
