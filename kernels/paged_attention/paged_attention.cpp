// The CPU body is attention's own (kernels/attention/cpu/arguments.h): pages are only another way to find a key's row,
// so the bits are attention_forward's by construction.
#include "kernels/paged_attention/paged_attention.h"

#include <bit>
#include <string>

#include "core/error.h"
#include "kernels/attention/checks.h"
#include "kernels/attention/schedule.h"
#include "kernels/checks/expect.h"
#include "kernels/paged_attention/checks.h"
#include "kernels/paged_attention/device.h"
#include "kernels/paged_attention/reference.h"

namespace lathe::kernels {
namespace {

KeyRows key_rows(const Tensor& pages, const Tensor& scales) {
  return {.data = pages.raw(),
          .token = pages.stride(2),
          .head = pages.stride(1),
          .page = pages.stride(0),
          .scales = pages.dtype() == DType::i8 ? scales.data<float>() : nullptr};
}

KeysAndValues paged_keys(const KvPages& pages, const int32_t* block_table) {
  const bool scaled = pages.k.dtype() == DType::i8;
  return {.k = key_rows(pages.k, pages.k_scales),
          .v = key_rows(pages.v, pages.v_scales),
          .pages = block_table,
          .page_size = pages.k.dim(2),
          .scale_page = scaled ? pages.k_scales.stride(0) : 0,
          .scale_head = scaled ? pages.k_scales.stride(1) : 0};
}

}  // namespace

int64_t paged_launched_keys(int64_t keys) {
  const auto chunks = static_cast<uint64_t>((keys + attention_chunk - 1) / attention_chunk);
  return static_cast<int64_t>(std::bit_ceil(chunks)) * attention_chunk;
}

void paged_attention(const Tensor& out, const Tensor& q, const KvPages& pages, const PagedBatch& batch,
                     const AttentionParams& params, const Tensor& lse) {
  constexpr std::string_view operation = "paged_attention";
  expect(operation, "q", q).rank(3).dtype({DType::f32, DType::bf16, DType::f16, DType::f64}).rows_contiguous();
  expect_pages(operation, pages);
  expect_batch(operation, batch, pages);
  expect_groups(operation, q.dim(1), pages.k.dim(1));
  const Shape shape{batch.tokens(), q.dim(1), pages.k.dim(3)};
  expect_heads(operation, "q", q, shape, q.dtype(), pages.k.device());
  expect_heads(operation, "out", out, shape, q.dtype(), q.device());
  expect_params(operation, params);
  if (lse.defined())
    expect(operation, "lse", lse)
        .shape({q.dim(1), q.dim(0)})
        .dtype(q.dtype() == DType::f64 ? DType::f64 : DType::f32)
        .rows_contiguous()
        .device(q.device());
  if (q.numel() == 0) return;
  if (q.device().kind != DeviceKind::cpu) return device::paged_attention(out, q, pages, batch, params, lse);
  if (q.dtype() == DType::f64) return reference::paged_attention(out, q, pages, batch, params, lse);
  expect(operation, "pages.k", pages.k).dtype({DType::f32, DType::bf16, DType::f16, DType::i8});

  AttentionTileArgs::Call call = attention_tile_call(out, lse, q, pages.k.dim(1), params);
  call.kv_dtype = pages.k.dtype();
  auto sequence = [&](int64_t s) -> AttentionSequence {
    const int64_t first = batch.bounds()[s], tokens = batch.bounds()[s + 1] - first;
    return {paged_keys(pages, batch.block_table(s)), first, tokens, batch.context(s) - tokens};
  };
  run_attention_tiles(call, batch.sequences(), sequence);
}

}  // namespace lathe::kernels
