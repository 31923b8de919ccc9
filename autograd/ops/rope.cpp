#include "autograd/ops/rope.h"

#include "autograd/operation.h"
#include "kernels/copy/copy.h"
#include "kernels/rope/rope.h"

namespace lathe::autograd {
namespace {

struct Rope final : Operation {
  RopeTables tables;
  SequenceLayout layout;
  Rope(RopeTables t, SequenceLayout l) : tables(std::move(t)), layout(std::move(l)) {}
  std::string_view name() const override { return "rope"; }

  void turn(const Tensor& out, const Tensor& in, kernels::RopeDirection direction) const {
    const int64_t turned = 2 * tables.cos.dim(1), all = in.dim(2);
    kernels::rope(out.slice(2, 0, turned), in.slice(2, 0, turned), layout.positions, tables.cos, tables.sin, direction);
    if (turned < all && out.raw() != in.raw()) kernels::copy(out.slice(2, turned, all), in.slice(2, turned, all));
  }

  void forward(Forward& f) {
    Tensor out = empty_like(f.input(0));
    turn(out, f.input(0), kernels::RopeDirection::forward);
    f.output(out);
  }

  void vjp(Saved&, std::span<Tensor> grad_outputs, InputGradients& grads) override {
    Tensor grad_x = in_place_or_fresh(grad_outputs[0]);
    turn(grad_x, grad_outputs[0], kernels::RopeDirection::backward);
    grads.add(0, std::move(grad_x));
  }
};

}  // namespace

RopeTables RopeTables::of_queries() const {
  return query_row == 0 ? *this : RopeTables{cos.slice(0, query_row, cos.dim(0)), sin.slice(0, query_row, sin.dim(0))};
}

RopeTables RopeTables::of_keys() const {
  return query_row == 0 ? *this : RopeTables{cos.slice(0, 0, query_row), sin.slice(0, 0, query_row)};
}

Variable rope(const Variable& x, const RopeTables& tables, const SequenceLayout& layout) {
  return apply(Rope(tables, layout), {x});
}

}  // namespace lathe::autograd
