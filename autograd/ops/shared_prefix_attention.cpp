#include "autograd/ops/shared_prefix_attention.h"

#include "autograd/operation.h"
#include "autograd/ops/attention_sinks.h"
#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {
namespace {

// The rows of whole sequences beside those of a layout that has shared ones once.
class WholeSequences {
 public:
  explicit WholeSequences(const SharedPrefixes& shared) {
    const auto bounds = shared.layout.cu_seqlens.span<int32_t>();
    if (std::ssize(shared.lengths) != shared.layout.sequences())
      throw ShapeError("shared_prefix_attention: " + std::to_string(shared.lengths.size()) + " prefixes for " +
                       std::to_string(shared.layout.sequences()) + " sequences");
    std::vector<int32_t> whole{0};
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      const int32_t prefix = shared.lengths[s], own = bounds[s + 1] - bounds[s];
      if (prefix > 0) {
        if (s == 0 || shared.lengths[s - 1] != 0 || prefix > bounds[s] - bounds[s - 1])
          throw ShapeError("shared_prefix_attention: sequence " + std::to_string(s) + " takes " +
                           std::to_string(prefix) + " tokens that the one before it does not have as its own");
        pieces_.push_back({bounds[s - 1], whole.back(), prefix, true});
      }
      pieces_.push_back({bounds[s], whole.back() + prefix, own, false});
      whole.push_back(whole.back() + prefix + own);
    }
    rows_ = whole.back();
    cu_seqlens_ = Tensor::of(std::span<const int32_t>(whole), Shape{std::ssize(whole)}, MemoryTag::other);
  }

  const Tensor& cu_seqlens() const { return cu_seqlens_; }

  // x's rows, those that are shared repeated; where `again` is zeros these are 0.
  enum class Again { repeated, zeros };
  Tensor of(const Tensor& x, Again again = Again::repeated) const {
    Tensor all = Tensor::empty({rows_, x.dim(1), x.dim(2)}, x.dtype(), x.device());
    for (const Piece& piece : pieces_) {
      const Tensor to = all.slice(0, piece.whole, piece.whole + piece.count);
      piece.again&& again == Again::zeros ? kernels::fill(to, 0.0) : kernels::copy(to, piece.rows_of(x));
    }
    return all;
  }
  // The other way: each row where it stands first.
  Tensor once(const Tensor& all, int64_t rows) const {
    Tensor x = Tensor::empty({rows, all.dim(1), all.dim(2)}, all.dtype(), all.device());
    for (const Piece& piece : pieces_)
      if (!piece.again) kernels::copy(piece.rows_of(x), all.slice(0, piece.whole, piece.whole + piece.count));
    return x;
  }
  // And what stands where it is repeated is added.
  Tensor summed(const Tensor& all, int64_t rows) const {
    Tensor x = once(all, rows);
    for (const Piece& piece : pieces_) {
      if (!piece.again) continue;
      const Tensor row = piece.rows_of(x);
      kernels::add(row, row, all.slice(0, piece.whole, piece.whole + piece.count));
    }
    return x;
  }

 private:
  struct Piece {
    int64_t row, whole, count;
    bool again;
    Tensor rows_of(const Tensor& x) const { return x.slice(0, row, row + count); }
  };
  std::vector<Piece> pieces_;
  int64_t rows_ = 0;
  Tensor cu_seqlens_;
};

struct SharedPrefixAttention final : Operation {
  WholeSequences whole;
  kernels::AttentionParams params;
  SharedPrefixAttention(const SharedPrefixes& shared, const kernels::AttentionParams& p) : whole(shared), params(p) {}
  std::string_view name() const override { return "shared_prefix_attention"; }

  void forward(Forward& f) {
    const Tensor &q = f.input(0), &k = f.input(1), &v = f.input(2), &sinks = f.input(3);
    const Tensor all = whole.of(q), out = empty_like(all);
    Tensor lse = lse_of_attention(all, sinks, f.recording());
    kernels::attention_forward({.out = out,
                                .lse = lse,
                                .q = all,
                                .k = whole.of(k),
                                .v = whole.of(v),
                                .cu_seqlens = whole.cu_seqlens(),
                                .params = params});
    lse = add_sinks(out, lse, sinks, f.recording());
    const Tensor once = whole.once(out, q.dim(0));
    f.save_input("q", 0);
    f.save_input("k", 1);
    f.save_input("v", 2);
    f.save("out", once);
    f.save("lse", lse);
    f.save("sinks", sinks);
    f.output(once);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    const int64_t rows = grad_outputs[0].dim(0);
    const Tensor q = whole.of(saved["q"]), k = whole.of(saved["k"]), v = whole.of(saved["v"]);
    const Tensor grad_q = empty_like(q), grad_k = empty_like(k), grad_v = empty_like(v);
    const Tensor grad_out = whole.of(grad_outputs[0], WholeSequences::Again::zeros), out = whole.of(saved["out"]);
    kernels::attention_backward({.grad_q = grad_q,
                                 .grad_k = grad_k,
                                 .grad_v = grad_v,
                                 .grad_out = grad_out,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .out = out,
                                 .lse = saved["lse"],
                                 .cu_seqlens = whole.cu_seqlens(),
                                 .params = params});
    grads.add(0, whole.once(grad_q, rows));
    grads.add(1, whole.summed(grad_k, rows));
    grads.add(2, whole.summed(grad_v, rows));
    if (grads.needed(3))
      accumulate_sink_gradient(grads.accumulator(3), grad_out, out, saved["lse"], saved["sinks"], whole.cu_seqlens());
  }
};

}  // namespace

Variable shared_prefix_attention(const Variable& q, const Variable& k, const Variable& v, const SharedPrefixes& shared,
                                 const kernels::AttentionParams& params, const Variable& sinks) {
  return apply(SharedPrefixAttention(shared, params), {q, k, v, sinks});
}

}  // namespace lathe::autograd
