#include "autograd/ops/keep_rows.h"

#include "autograd/operation.h"
#include "kernels/copy/copy.h"

namespace lathe::autograd {
namespace {

struct KeepRows final : Operation {
  int64_t begin, end;
  KeepRows(int64_t b, int64_t e) : begin(b), end(e) {}
  std::string_view name() const override { return "keep_rows"; }

  Tensor kept(const Tensor& x) const {
    Tensor out = empty_like(x);
    kernels::fill(out, 0.0);
    if (begin < end) kernels::copy(out.slice(0, begin, end), x.slice(0, begin, end));
    return out;
  }
  void forward(Forward& f) { f.output(kept(f.input(0))); }
  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    grads.add(0, kept(grad_outputs[0]));
  }
};

}  // namespace

Variable keep_rows(const Variable& x, int64_t begin, int64_t end) { return apply(KeepRows(begin, end), {x}); }

}  // namespace lathe::autograd
