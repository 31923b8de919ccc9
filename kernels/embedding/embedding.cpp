#include "kernels/embedding/embedding.h"

#include <cstring>

#include "kernels/arguments/run_rows.h"
#include "kernels/checks/expect.h"
#include "kernels/copy/copy.h"
#include "kernels/embedding/cuda.h"
#include "kernels/embedding/plan.h"
#include "kernels/embedding/reference.h"

namespace lathe::kernels {
namespace {

void forward_on_cpu(const Tensor& out, const Tensor& weight, const int32_t* ids) {
  const int64_t element = size_of(weight.dtype());
  const size_t row_bytes = static_cast<size_t>(weight.dim(1) * element);
  parallel_for(out.dim(0), row_grain(weight.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      std::memcpy(static_cast<char*>(out.raw()) + t * out.stride(0) * element,
                  static_cast<const char*>(weight.raw()) + ids[t] * weight.stride(0) * element, row_bytes);
    }
  });
}

}  // namespace

void embedding_forward(const Tensor& out, const Tensor& weight, const Tensor& ids) {
  const char* operation = "embedding_forward";
  expect(operation, "weight", weight)
      .rank(2)
      .dtype({DType::f32, DType::bf16, DType::f16, DType::f64})
      .rows_contiguous();
  expect_body(operation, "weight", weight);
  expect(operation, "ids", ids).rank(1);
  const Indices indices = expect_indices(operation, "ids", ids, ids.dim(0), "weight", weight.dim(0), weight.device());
  expect(operation, "out", out).shape({ids.dim(0), weight.dim(1)}).dtype(weight.dtype()).rows_contiguous();
  expect(operation, "out", out).device(weight.device());
  if (out.numel() == 0) return;
  if (weight.device().kind == DeviceKind::cpu) return forward_on_cpu(out, weight, indices.data);
  const EmbeddingForwardCuda args{.element_bytes = size_of(weight.dtype()),
                                  .out = matrix_of(out),
                                  .weight = matrix_of(weight),
                                  .ids = indices,
                                  .rows = out.dim(0),
                                  .columns = out.dim(1),
                                  .vocabulary = weight.dim(0)};
  with_device(weight.device(), [&]<DeviceKind kind>() { embedding_forward_rows<kind>(args); });
}

namespace {

constexpr const char* backward = "embedding_backward";

void expect_gradients(const Tensor& grad_weight, const Tensor& grad_out, int64_t tokens) {
  expect(backward, "grad_weight", grad_weight).rank(2).dtype({DType::f32, DType::f64}).rows_contiguous();
  expect_body(backward, "grad_weight", grad_weight);
  expect(backward, "grad_out", grad_out)
      .shape({tokens, grad_weight.dim(1)})
      .rows_contiguous()
      .device(grad_weight.device());
  if (grad_weight.dtype() == DType::f64) {
    expect(backward, "grad_out", grad_out).dtype(DType::f64);
  } else {
    expect(backward, "grad_out", grad_out).dtype({DType::f32, DType::bf16, DType::f16});
  }
}

// With lists where grad_weight is.
void add_rows(const Tensor& grad_weight, const Tensor& grad_out, const EmbeddingPlan& plan) {
  EmbeddingBackwardArgs args{};
  args.dtype = grad_out.dtype();
  args.grad_weight = matrix_of(grad_weight);
  args.grad_out = matrix_of(grad_out);
  args.columns = grad_weight.dim(1);
  plan.describe_to(args);
  run_rows(
      args, grad_weight.device(),
      []<auto target>(const EmbeddingBackwardArgs& rows) { embedding_backward_rows<target>(rows); });
}

}  // namespace

void embedding_backward(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& ids,
                        const Tensor& cu_seqlens) {
  expect(backward, "ids", ids).rank(1).device({});
  expect_gradients(grad_weight, grad_out, ids.dim(0));
  expect_indices(backward, "ids", ids, ids.dim(0), "grad_weight", grad_weight.dim(0), {});
  expect_cu_seqlens(backward, cu_seqlens, ids.dim(0));
  if (grad_out.numel() == 0) return;
  if (grad_weight.dtype() == DType::f64) return reference::embedding_backward(grad_weight, grad_out, ids, cu_seqlens);
  EmbeddingPlan plan = EmbeddingPlan::of(ids, cu_seqlens);
  if (grad_weight.device().kind != DeviceKind::cpu) {
    const Tensor there = Tensor::empty(plan.lists.shape(), DType::i32, grad_weight.device(), MemoryTag::workspace);
    copy(there, plan.lists);
    plan.lists = there;
  }
  add_rows(grad_weight, grad_out, plan);
}

Tensor embedding_plan(const Tensor& ids, const Tensor& cu_seqlens) {
  expect("embedding_plan", "ids", ids).rank(1).dtype(DType::i32).contiguous().device({});
  expect_cu_seqlens("embedding_plan", cu_seqlens, ids.dim(0));
  return EmbeddingPlan::of(ids, cu_seqlens).lists;
}

void embedding_backward(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& plan) {
  expect(backward, "grad_out", grad_out).rank(2);
  const int64_t tokens = grad_out.dim(0);
  expect_gradients(grad_weight, grad_out, tokens);
  expect(backward, "grad_weight", grad_weight).dtype(DType::f32);
  expect(backward, "plan", plan)
      .shape({embedding_plan_length(tokens)})
      .dtype(DType::i32)
      .contiguous()
      .device(grad_weight.device());
  if (grad_out.numel() > 0) add_rows(grad_weight, grad_out, {plan, tokens});
}

}  // namespace lathe::kernels
