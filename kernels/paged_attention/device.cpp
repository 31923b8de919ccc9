#include "kernels/paged_attention/device.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/attention/cuda/arguments.h"
#include "kernels/checks/expect.h"
#include "kernels/dispatch.h"
#include "kernels/paged_attention/cuda.h"

namespace lathe::kernels::device {
namespace {

PageSide side_of(const Tensor& pages, const Tensor& scales) {
  if (scales.defined()) expect("paged_attention", "scales", scales).contiguous();
  return {pages.raw(), pages.stride(0), pages.stride(1), pages.stride(2),
          scales.defined() ? scales.data<float>() : nullptr};
}

// Blocks that fill a large card, several to a multiprocessor: fewer decoded sequences than that are split. On simt few,
// so that small cases take both ways.
int64_t blocks_wanted(Device device) { return device.kind == DeviceKind::simt ? 24 : 512; }
// The results of split sequences are kept to 256 MiB.
constexpr int64_t partial_floats_most = int64_t{1} << 26;

// Fills in how the batch's sequences are cut, and returns the room that split ones need.
Tensor cut(PagedAttentionCuda& args, const PagedBatch& batch, Device device) {
  const int64_t group = args.heads / args.kv_heads;
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const int64_t tokens = batch.bounds()[s + 1] - batch.bounds()[s], rows = tokens * group;
    if (rows > paged_decode_rows) {
      args.most_tiles_rows = std::max(args.most_tiles_rows, rows);
    } else if (rows > 0) {
      const int64_t keys = args.params.window > 0
                               ? std::min(batch.context(s), args.params.window + tokens + attention_chunk)
                               : batch.context(s);
      ++args.decoded;
      args.most_decode_rows = std::max(args.most_decode_rows, rows);
      args.most_decode_chunks = std::max(args.most_decode_chunks, paged_launched_keys(keys) / attention_chunk);
    }
  }
  args.runs = 1;
  if (args.decoded == 0) return {};
  bool by_clusters = false;
  with_device(device, [&]<DeviceKind kind>() { by_clusters = paged_decode_takes_clusters<kind>(args); });
  if (by_clusters) return {};
  const int64_t floats = batch.sequences() * args.kv_heads * args.most_decode_chunks *
                         paged_partial_floats(args.most_decode_rows, args.head_dim);
  if (floats <= partial_floats_most)
    args.runs = std::clamp<int64_t>(blocks_wanted(device) / (args.decoded * args.kv_heads), 1, args.most_decode_chunks);
  if (args.runs == 1) return {};
  const Tensor partials = Tensor::empty({floats}, DType::f32, device, MemoryTag::workspace);
  args.partials = partials.data<float>();
  return partials;
}

KvCopyCuda::Pages pages_of(const Tensor& pages) {
  if (!pages.defined()) return {};
  expect("kv_copy_pages", "pages", pages).contiguous();
  return {pages.raw(), pages.stride(0) * size_of(pages.dtype())};
}

}  // namespace

PagedSteps steps_of(const PagedBatch& batch) {
  const PagedBatch::OnDevice there = batch.on_device();
  return {there.bounds,      there.contexts,  there.token_page,  there.token_offset,
          there.block_table, there.max_pages, batch.sequences(), batch.tokens()};
}

void paged_attention(const Tensor& out, const Tensor& q, const KvPages& pages, const PagedBatch& batch,
                     const AttentionParams& params, const Tensor& lse) {
  constexpr const char* operation = "paged_attention";
  expect(operation, "q", q).dtype({DType::f32, DType::bf16, DType::f16});
  if (q.dtype() == DType::f32) {
    expect(operation, "pages.k", pages.k).dtype({DType::f32, DType::bf16, DType::f16, DType::i8});
  } else {  // f32 keys would need a path of their own, and are no better than the q they meet
    expect(operation, "pages.k", pages.k).dtype({DType::bf16, DType::f16, DType::i8});
  }
  if (q.dim(2) > attention_cuda_head_dim_most)
    throw ShapeError("paged_attention: q expects a head size of at most " +
                     std::to_string(attention_cuda_head_dim_most) + " on " + to_string(q.device()) + ", found " +
                     describe(q));
  PagedAttentionCuda args{.dtype = q.dtype(),
                          .page_dtype = pages.k.dtype(),
                          .q = head_rows_of(q),
                          .out = head_rows_of(out),
                          .lse = lse.defined() ? lse.data<float>() : nullptr,
                          .lse_head = lse.defined() ? lse.stride(0) : 0,
                          .k = side_of(pages.k, pages.k_scales),
                          .v = side_of(pages.v, pages.v_scales),
                          .batch = steps_of(batch),
                          .heads = q.dim(1),
                          .kv_heads = pages.k.dim(1),
                          .head_dim = q.dim(2),
                          .pages = pages.k.dim(0),
                          .page_size = pages.k.dim(2),
                          .params = params};
  const Tensor room = cut(args, batch, q.device());
  with_device(q.device(), [&]<DeviceKind kind>() { paged_attention_tiles<kind>(args); });
}

KvAppendCuda kv_append_args(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch) {
  return {.dtype = k.dtype(),
          .page_dtype = pages.k.dtype(),
          .k = head_rows_of(k),
          .v = head_rows_of(v),
          .k_pages = side_of(pages.k, pages.k_scales),
          .v_pages = side_of(pages.v, pages.v_scales),
          .batch = steps_of(batch),
          .kv_heads = k.dim(1),
          .head_dim = k.dim(2),
          .page_size = pages.k.dim(2)};
}

void kv_append(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch) {
  const KvAppendCuda args = kv_append_args(pages, k, v, batch);
  with_device(k.device(), [&]<DeviceKind kind>() { kv_append_rows<kind>(args); });
}

void kv_copy_pages(const KvPages& pages, const Tensor& from, const Tensor& to) {
  const KvCopyCuda args{
      .sides = {pages_of(pages.k), pages_of(pages.v), pages_of(pages.k_scales), pages_of(pages.v_scales)},
      .from = from.data<int32_t>(),
      .to = to.data<int32_t>(),
      .count = from.dim(0)};
  with_device(pages.k.device(), [&]<DeviceKind kind>() { kv_copy_page_pairs<kind>(args); });
}

}  // namespace lathe::kernels::device
