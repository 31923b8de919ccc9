#include "kernels/attention/attention.h"

#include <string>

#include "core/error.h"
#include "kernels/attention/checks.h"
#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/reference.h"
#include "kernels/attention/schedule.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"

namespace lathe::kernels {
namespace {

void check_inputs(std::string_view operation, const Tensor& q, const Tensor& k, const Tensor& v,
                  const Tensor& cu_seqlens, const AttentionParams& params) {
  expect(operation, "q", q).rank(3).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_body(operation, "q", q);
  expect(operation, "k", k).rank(3);
  expect_groups(operation, q.dim(1), k.dim(1));
  const Shape key_shape{q.dim(0), k.dim(1), q.dim(2)};
  expect_heads(operation, "k", k, key_shape, q.dtype(), q.device());
  expect_heads(operation, "v", v, key_shape, q.dtype(), q.device());
  expect_cu_seqlens(operation, cu_seqlens, q.dim(0));
  expect_params(operation, params);
  if (q.device().kind != DeviceKind::cpu && q.dim(2) > attention_cuda_head_dim_most)
    throw ShapeError(std::string(operation) + ": q expects a head size of at most " +
                     std::to_string(attention_cuda_head_dim_most) + " on " + to_string(q.device()) + ", found " +
                     describe(q) + "; run it on the cpu");
}

void check_lse(std::string_view operation, const Tensor& lse, const Tensor& q) {
  expect(operation, "lse", lse)
      .shape({q.dim(1), q.dim(0)})
      .dtype(q.dtype() == DType::f64 ? DType::f64 : DType::f32)
      .rows_contiguous()
      .device(q.device());
}

void forward_on_device(const AttentionForward& call) {
  const Tensor &q = call.q, &lse = call.lse;
  const AttentionForwardCuda args{.dtype = q.dtype(),
                                  .q = head_rows_of(q),
                                  .k = head_rows_of(call.k),
                                  .v = head_rows_of(call.v),
                                  .out = head_rows_of(call.out),
                                  .lse = lse.defined() ? lse.data<float>() : nullptr,
                                  .lse_head = lse.defined() ? lse.stride(0) : 0,
                                  .cu_seqlens = call.cu_seqlens.data<int32_t>(),
                                  .sequences = call.cu_seqlens.dim(0) - 1,
                                  .heads = q.dim(1),
                                  .kv_heads = call.k.dim(1),
                                  .head_dim = q.dim(2),
                                  .params = call.params};
  with_device(q.device(), [&]<DeviceKind kind>() { attention_forward_tiles<kind>(args); });
}

void backward_on_device(const AttentionBackward& call) {
  const Tensor& q = call.q;
  const Tensor dots = Tensor::empty({q.dim(1), q.dim(0)}, DType::f32, q.device(), MemoryTag::workspace);
  const AttentionBackwardCuda args{.dtype = q.dtype(),
                                   .grad_q = head_rows_of(call.grad_q),
                                   .grad_k = head_rows_of(call.grad_k),
                                   .grad_v = head_rows_of(call.grad_v),
                                   .grad_out = head_rows_of(call.grad_out),
                                   .q = head_rows_of(q),
                                   .k = head_rows_of(call.k),
                                   .v = head_rows_of(call.v),
                                   .out = head_rows_of(call.out),
                                   .lse = call.lse.data<float>(),
                                   .lse_head = call.lse.stride(0),
                                   .dots = dots.data<float>(),
                                   .cu_seqlens = call.cu_seqlens.data<int32_t>(),
                                   .sequences = call.cu_seqlens.dim(0) - 1,
                                   .tokens = q.dim(0),
                                   .heads = q.dim(1),
                                   .kv_heads = call.k.dim(1),
                                   .head_dim = q.dim(2),
                                   .params = call.params};
  with_device(q.device(), [&]<DeviceKind kind>() { attention_backward_tiles<kind>(args); });
}

// Keys or values of the sequence that starts at `token`.
KeyRows key_rows(const Tensor& x, int64_t token) {
  return {.data = static_cast<const char*>(x.raw()) + token * x.stride(0) * size_of(x.dtype()),
          .token = x.stride(0),
          .head = x.stride(1),
          .page = 0,
          .scales = nullptr};
}

void forward_on_cpu(const AttentionForward& call) {
  const auto bounds = call.cu_seqlens.span<int32_t>();
  auto sequence = [&](int64_t s) -> AttentionSequence {
    const int64_t start = bounds[s];
    AttentionSequence result{};
    result.keys.k = key_rows(call.k, start);
    result.keys.v = key_rows(call.v, start);
    result.first_token = start;
    result.tokens = bounds[s + 1] - start;
    return result;
  };
  run_attention_tiles(attention_tile_call(call.out, call.lse, call.q, call.k.dim(1), call.params),
                      static_cast<int64_t>(bounds.size()) - 1, sequence);
}

void backward_on_cpu(const AttentionBackward& call) {
  const int64_t heads = call.q.dim(1), kv_heads = call.k.dim(1), head_dim = call.q.dim(2);
  run_attention_gradients({.grad_q = head_rows_of(call.grad_q),
                           .grad_k = head_rows_of(call.grad_k),
                           .grad_v = head_rows_of(call.grad_v),
                           .grad_out = head_rows_of(call.grad_out),
                           .q = head_rows_of(call.q),
                           .k = head_rows_of(call.k),
                           .v = head_rows_of(call.v),
                           .out = head_rows_of(call.out),
                           .lse = call.lse.data<float>(),
                           .lse_head = call.lse.stride(0),
                           .dots = nullptr,
                           .tokens = call.q.dim(0),
                           .heads = heads,
                           .head_dim = head_dim,
                           .padded_dim = padded_head_dim(head_dim),
                           .kv_heads = kv_heads,
                           .group = heads / kv_heads,
                           .params = call.params,
                           .dtype = call.q.dtype()},
                          call.cu_seqlens.span<int32_t>());
}

}  // namespace

void attention_forward(const AttentionForward& call) {
  constexpr std::string_view operation = "attention_forward";
  const Tensor& q = call.q;
  check_inputs(operation, q, call.k, call.v, call.cu_seqlens, call.params);
  expect_heads(operation, "out", call.out, q.shape(), q.dtype(), q.device());
  if (call.lse.defined()) check_lse(operation, call.lse, q);
  if (q.numel() == 0) return;
  if (q.dtype() == DType::f64) return reference::attention_forward(call);
  if (q.device().kind != DeviceKind::cpu) return forward_on_device(call);
  forward_on_cpu(call);
}

void attention_backward(const AttentionBackward& call) {
  constexpr std::string_view operation = "attention_backward";
  const Tensor &q = call.q, &k = call.k;
  check_inputs(operation, q, k, call.v, call.cu_seqlens, call.params);
  expect_heads(operation, "out", call.out, q.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_out", call.grad_out, q.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_q", call.grad_q, q.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_k", call.grad_k, k.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_v", call.grad_v, k.shape(), q.dtype(), q.device());
  check_lse(operation, call.lse, q);
  if (q.numel() == 0) return;
  if (q.dtype() == DType::f64) return reference::attention_backward(call);
  if (q.device().kind != DeviceKind::cpu) return backward_on_device(call);
  backward_on_cpu(call);
}

}  // namespace lathe::kernels
