#include "kernels/attention/attention.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/attention/cpu/backward.h"
#include "kernels/attention/checks.h"
#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/reference.h"
#include "kernels/attention/run_tiles.h"
#include "kernels/attention/scratch.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {
namespace {

// A task of the backward below this many products is not worth handing to another thread.
constexpr int64_t products_least = 1 << 16;

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

HeadRows rows_of(const Tensor& x) { return {x.raw(), x.stride(0), x.stride(1)}; }

void forward_on_device(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                       const Tensor& cu_seqlens, const AttentionParams& params) {
  const AttentionForwardCuda args{.dtype = q.dtype(),
                                  .q = rows_of(q),
                                  .k = rows_of(k),
                                  .v = rows_of(v),
                                  .out = rows_of(out),
                                  .lse = lse.defined() ? lse.data<float>() : nullptr,
                                  .lse_head = lse.defined() ? lse.stride(0) : 0,
                                  .cu_seqlens = cu_seqlens.data<int32_t>(),
                                  .sequences = cu_seqlens.dim(0) - 1,
                                  .heads = q.dim(1),
                                  .kv_heads = k.dim(1),
                                  .head_dim = q.dim(2),
                                  .params = params};
  device::attention_forward_tiles(args, q.device());
}

void backward_on_device(const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v, const Tensor& grad_out,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const Tensor& cu_seqlens, const AttentionParams& params) {
  const Tensor dots = Tensor::empty({q.dim(1), q.dim(0)}, DType::f32, q.device(), MemoryTag::workspace);
  const AttentionBackwardCuda args{.dtype = q.dtype(),
                                   .grad_q = rows_of(grad_q),
                                   .grad_k = rows_of(grad_k),
                                   .grad_v = rows_of(grad_v),
                                   .grad_out = rows_of(grad_out),
                                   .q = rows_of(q),
                                   .k = rows_of(k),
                                   .v = rows_of(v),
                                   .out = rows_of(out),
                                   .lse = lse.data<float>(),
                                   .lse_head = lse.stride(0),
                                   .dots = dots.data<float>(),
                                   .cu_seqlens = cu_seqlens.data<int32_t>(),
                                   .sequences = cu_seqlens.dim(0) - 1,
                                   .tokens = q.dim(0),
                                   .heads = q.dim(1),
                                   .kv_heads = k.dim(1),
                                   .head_dim = q.dim(2),
                                   .params = params};
  device::attention_backward_tiles(args, q.device());
}

// Which of the two ways of cutting the backward ends first: one pass makes five products a pair of tiles, two passes
// make seven between them but leave many more pieces to share out.
bool in_one_pass(int64_t tasks, int64_t threads) {
  const int64_t rounds = (tasks + threads - 1) / threads;
  return 5 * rounds * threads <= 7 * tasks;
}

void run_backward(const BackwardCall& call, std::span<const int32_t> bounds, int64_t kv_heads) {
  const int64_t sequences = static_cast<int64_t>(bounds.size()) - 1;
  int64_t longest = 0, products = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t length = bounds[s + 1] - bounds[s];
    longest = std::max(longest, length);
    products += 4 * length * length * call.head_dim * call.group;
  }
  const int64_t scratch_floats = backward_scratch_floats(longest, call.padded_dim);
  const int64_t chunks = (longest + attention_chunk - 1) / attention_chunk;

  // Pieces [begin, end) of every sequence and kv head; a piece past a shorter sequence's end is nothing.
  const auto run = [&](int64_t pieces, void (*body)(const BackwardTask&), bool whole) {
    const int64_t tasks = sequences * kv_heads * pieces;
    const int64_t grain = std::max<int64_t>(1, products_least * tasks / std::max<int64_t>(1, products * kv_heads));
    parallel_for(tasks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t s = i / pieces / kv_heads, piece = i % pieces;
        const int64_t start = bounds[s], length = bounds[s + 1] - start;
        if (piece * attention_chunk >= length) continue;
        BackwardTask task{&call, start, length, i / pieces % kv_heads, piece, piece + 1, nullptr};
        if (whole) task.end = (length + attention_chunk - 1) / attention_chunk;
        task.scratch = attention_scratch(ScratchUse::task, scratch_floats);
        body(task);
      }
    });
  };
  if (chunks <= 1 || in_one_pass(sequences * kv_heads, thread_count())) {
    run(1, cpu::attention_gradients, true);
  } else {
    run(1, cpu::attention_row_dots, true);
    run(chunks, cpu::attention_key_gradients, false);
    run(chunks, cpu::attention_query_gradients, false);
  }
}

}  // namespace

void attention_forward(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                       const Tensor& cu_seqlens, const AttentionParams& params) {
  constexpr std::string_view operation = "attention_forward";
  check_inputs(operation, q, k, v, cu_seqlens, params);
  expect_heads(operation, "out", out, q.shape(), q.dtype(), q.device());
  if (lse.defined()) check_lse(operation, lse, q);
  if (q.numel() == 0) return;
  if (q.dtype() == DType::f64) return reference::attention_forward(out, lse, q, k, v, cu_seqlens, params);

  if (q.device().kind != DeviceKind::cpu) return forward_on_device(out, lse, q, k, v, cu_seqlens, params);

  const TileCall call = tile_call(out, lse, q, k.dim(1), params);
  const auto bounds = cu_seqlens.span<int32_t>();
  const auto at_token = [](const Tensor& x, int64_t token) {
    return static_cast<const char*>(x.raw()) + token * x.stride(0) * size_of(x.dtype());
  };
  auto sequence = [&](int64_t s) -> TileSequence {
    const int64_t start = bounds[s];
    TileSequence result{};
    result.keys.k = at_token(k, start);
    result.keys.v = at_token(v, start);
    result.keys.k_token = k.stride(0);
    result.keys.k_head = k.stride(1);
    result.keys.v_token = v.stride(0);
    result.keys.v_head = v.stride(1);
    result.first_token = start;
    result.tokens = bounds[s + 1] - start;
    return result;
  };
  run_tiles(call, k.dim(1), static_cast<int64_t>(bounds.size()) - 1, sequence);
}

void attention_backward(const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v, const Tensor& grad_out,
                        const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const Tensor& cu_seqlens, const AttentionParams& params) {
  constexpr std::string_view operation = "attention_backward";
  check_inputs(operation, q, k, v, cu_seqlens, params);
  expect_heads(operation, "out", out, q.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_out", grad_out, q.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_q", grad_q, q.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_k", grad_k, k.shape(), q.dtype(), q.device());
  expect_heads(operation, "grad_v", grad_v, k.shape(), q.dtype(), q.device());
  check_lse(operation, lse, q);
  if (q.numel() == 0) return;
  if (q.dtype() == DType::f64) {
    return reference::attention_backward(grad_q, grad_k, grad_v, grad_out, q, k, v, out, lse, cu_seqlens, params);
  }

  if (q.device().kind != DeviceKind::cpu) {
    return backward_on_device(grad_q, grad_k, grad_v, grad_out, q, k, v, out, lse, cu_seqlens, params);
  }

  BackwardCall call{};
  call.grad_q = rows_of(grad_q);
  call.grad_k = rows_of(grad_k);
  call.grad_v = rows_of(grad_v);
  call.grad_out = rows_of(grad_out);
  call.q = rows_of(q);
  call.k = rows_of(k);
  call.v = rows_of(v);
  call.out = rows_of(out);
  call.lse = lse.data<float>();
  call.lse_head = lse.stride(0);
  call.tokens = q.dim(0);
  call.heads = q.dim(1);
  call.head_dim = q.dim(2);
  call.padded_dim = padded_head_dim(call.head_dim);
  call.group = call.heads / k.dim(1);
  call.window = params.window;
  call.scale = params.scale;
  call.softcap = params.softcap;
  call.dtype = q.dtype();
  call.dots = attention_scratch(ScratchUse::call, call.heads * call.tokens);

  run_backward(call, cu_seqlens.span<int32_t>(), k.dim(1));
}

}  // namespace lathe::kernels
