#include "autograd/ops/embedding.h"

#include "autograd/operation.h"
#include "kernels/embedding/embedding.h"

namespace lathe::autograd {
namespace {

struct Embedding final : Operation {
  LinearWeight weight;
  Tensor ids;
  SequenceLayout layout;
  Embedding(LinearWeight w, Tensor i, SequenceLayout l)
      : weight(std::move(w)), ids(std::move(i)), layout(std::move(l)) {}
  std::string_view name() const override { return "embedding"; }

  void forward(Forward& f) {
    Tensor out = Tensor::empty({ids.numel(), weight.columns()}, weight.dtype(), weight.value().device());
    if (const kernels::PackedWeight* packed = weight.value().packed()) {
      kernels::embedding_forward(out, *packed, ids);
    } else {
      kernels::embedding_forward(out, f.input(0), ids);
    }
    f.save("ids", ids);
    f.output(out);
  }

  void vjp(Saved& saved, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    kernels::embedding_backward(grads.accumulator(0), grad_outputs[0], saved["ids"], layout.cu_seqlens);
  }
};

}  // namespace

Variable embedding(const LinearWeight& weight, const Tensor& ids, const SequenceLayout& layout) {
  return apply(Embedding(weight, ids, layout), {weight.dense()});
}

}  // namespace lathe::autograd
