#include "autograd/ops/embedding.h"

#include "autograd/operation.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/embedding/embedding.h"

namespace lathe::autograd {
namespace {

using kernels::Layout;

enum Input : int { weight, first_term };  // then weight, a and b of each term
int own_weight(int term) { return first_term + 3 * term; }
int lora_a(int term) { return first_term + 3 * term + 1; }
int lora_b(int term) { return first_term + 3 * term + 2; }

// [V, r] of [r, V]: rows to gather, and to scatter to.
Tensor transposed(const Tensor& a) {
  Tensor rows = Tensor::empty({a.dim(1), a.dim(0)}, a.dtype(), a.device());
  kernels::copy(rows, a.transpose(0, 1));
  return rows;
}

struct Embedding final : Operation {
  struct Term {
    float scale;
    SequenceRun run;
    bool has_weight, has_lora;
  };
  LinearWeight base;
  Tensor ids, plan;
  SequenceLayout layout;
  std::vector<Term> terms;
  Embedding(LinearWeight w, Tensor i, SequenceLayout l, Tensor p)
      : base(std::move(w)), ids(std::move(i)), plan(std::move(p)), layout(std::move(l)) {}
  std::string_view name() const override { return "embedding"; }

  static Tensor rows(const Tensor& all, const SequenceRun& run) {
    return all.slice(0, run.first_token, run.end_token());
  }

  void forward(Forward& f) {
    Tensor out = Tensor::empty({ids.numel(), base.columns()}, base.dtype(), base.value().device());
    look_up(out, base.value(), ids);
    for (int i = 0; i < static_cast<int>(terms.size()); ++i) {
      const Term& term = terms[static_cast<size_t>(i)];
      const Tensor term_out = rows(out, term.run), term_ids = rows(ids, term.run);
      if (term.has_weight) kernels::embedding_forward(term_out, f.input(own_weight(i)), term_ids);
      if (!term.has_lora) continue;
      const Tensor &a = f.input(lora_a(i)), &b = f.input(lora_b(i));
      Tensor product = empty_like(term_out);
      kernels::matmul(product, gathered(a, term_ids), b, Layout::transposed, term.scale);
      kernels::add(term_out, term_out, product);
      if (f.needs(lora_b(i)) || f.needs(lora_a(i))) {
        f.save("a", a);
        f.save("b", b);
      }
    }
    f.save("ids", ids);
    f.output(out);
  }

  static void look_up(const Tensor& out, const kernels::Weight& from, const Tensor& which) {
    if (const kernels::PackedWeight* packed = from.packed()) {
      kernels::embedding_forward(out, *packed, which);
    } else if (const kernels::GgmlWeight* ggml = from.ggml()) {
      kernels::embedding_forward(out, *ggml, which);
    } else {
      kernels::embedding_forward(out, *from.dense(), which);
    }
  }

  // A[:, id] of each token, [T, r].
  static Tensor gathered(const Tensor& a, const Tensor& which) {
    Tensor out = Tensor::empty({which.numel(), a.dim(0)}, a.dtype(), a.device());
    kernels::embedding_forward(out, transposed(a), which);
    return out;
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const Tensor &grad_out = grad_outputs[0], &all_ids = saved["ids"];
    if (grads.needed(weight)) {
      // Rows that an adapter has another weight for are none of this one's.
      Tensor own = grad_out;
      for (const Term& term : terms) {
        if (!term.has_weight) continue;
        if (own.raw() == grad_out.raw()) own = grad_out.clone();
        kernels::fill(rows(own, term.run), 0.0);
      }
      scatter(grads.accumulator(weight), own, all_ids, layout.cu_seqlens);
    }
    int lora = 0;  // among those that saved a and b
    for (int i = 0; i < static_cast<int>(terms.size()); ++i) {
      const Term& term = terms[static_cast<size_t>(i)];
      const Tensor grad = rows(grad_out, term.run), term_ids = rows(all_ids, term.run);
      const Tensor& bounds = term.run.layout.cu_seqlens;
      if (grads.needed(own_weight(i))) scatter(grads.accumulator(own_weight(i)), grad, term_ids, bounds);
      if (!grads.needed(lora_a(i)) && !grads.needed(lora_b(i))) continue;
      const Tensor a = saved.at("a", lora), b = saved.at("b", lora);
      ++lora;
      if (grads.needed(lora_b(i)))
        kernels::linear_weight_gradient(grads.accumulator(lora_b(i)), grad, gathered(a, term_ids), bounds, term.scale);
      if (grads.needed(lora_a(i))) a_gradient(grads.accumulator(lora_a(i)), grad, b, term_ids, term);
    }
  }

  void scatter(const Tensor& grad_rows, const Tensor& grad, const Tensor& which, const Tensor& bounds) const {
    plan.defined() ? kernels::embedding_backward(grad_rows, grad, plan)
                   : kernels::embedding_backward(grad_rows, grad, which, bounds);
  }

  // Token by token into columns of [r, V], in the order in which rows are scattered to.
  void a_gradient(const Tensor& grad_a, const Tensor& grad, const Tensor& b, const Tensor& which,
                  const Term& term) const {
    Tensor through = Tensor::empty({grad.dim(0), b.dim(1)}, grad.dtype(), grad.device());
    kernels::matmul(through, grad, b, Layout::plain, term.scale);
    const Tensor scattered = transposed(grad_a);
    scatter(scattered, through, which, term.run.layout.cu_seqlens);
    kernels::copy(grad_a, scattered.transpose(0, 1));
  }
};

}  // namespace

Variable embedding(const LinearWeight& weight, const Tensor& ids, const SequenceLayout& layout,
                   const std::vector<EmbeddingTerm>& terms, const Tensor& plan) {
  Embedding operation(weight, ids, layout, plan);
  std::vector<Variable> inputs{weight.dense()};
  for (const EmbeddingTerm& term : terms) {
    const SequenceRun run = term.sequences ? *term.sequences : SequenceRun{0, layout};
    if (run.layout.tokens() == 0) continue;
    operation.terms.push_back({term.scale, run, term.weight.defined(), term.a.defined()});
    for (const Variable& input : {term.weight, term.a, term.b}) inputs.push_back(input);
  }
  return apply(std::move(operation), std::span<const Variable>(inputs));
}

}  // namespace lathe::autograd
