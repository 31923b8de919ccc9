// The CUDA bodies of paged_attention.h. Pointers are device memory unless said otherwise.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/attention/params.h"

namespace lathe::kernels {

// Keys or values in pages; strides in elements. Scales of i8: [pages, kv_heads, page_size], contiguous.
struct PageSide {
  void* data;
  int64_t page, head, token;
  float* scales;
};

// What a batch is to a kernel: PagedBatch::on_device() and the host's bounds of it.
struct PagedSteps {
  const int32_t *bounds, *contexts, *token_page, *token_offset, *block_table;
  int64_t max_pages;
  int64_t sequences, tokens;
};

struct KvAppendCuda {
  DType dtype, page_dtype;  // f32 | bf16 | f16, and f32 | bf16 | f16 | i8
  HeadRows k, v;
  PageSide k_pages, v_pages;
  PagedSteps batch;
  int64_t kv_heads, head_dim, page_size;
};

// Contiguous pages.
struct KvCopyCuda {
  struct Pages {
    void* data;
    int64_t page_bytes;
  };
  Pages sides[4];            // k, v and their scales; null: not there
  const int32_t *from, *to;  // [count], on the host, in order
  int64_t count;
};

// Sequences of at most this many rows (new tokens × query heads of a kv head) are decoded: their keys may be split.
inline constexpr int paged_decode_rows = 16;

struct PagedAttentionCuda {
  DType dtype, page_dtype;  // f32 | bf16 | f16, and f32 | bf16 | f16 | i8
  HeadRows q, out;
  float* lse;  // [heads][T], lse_head apart; null: not wanted
  int64_t lse_head;
  PageSide k, v;
  PagedSteps batch;
  int64_t heads, kv_heads, head_dim, pages, page_size;
  AttentionParams params;
  int64_t most_tiles_rows = 0;  // rows of the longest sequence that is not decoded; 0: there is none
  int64_t decoded = 0, most_decode_rows = 0, most_decode_chunks = 0;  // those that are, and of them
  // Into how many runs of chunks a decoded sequence is split at most, and the room for the chunks' results when it is
  // more than one: paged_partial_floats() for each.
  int64_t runs = 1;
  float* partials = nullptr;
};

// o, m and l of one chunk and kv head, a multiple of 16 bytes.
constexpr int64_t paged_partial_floats(int64_t rows, int64_t head_dim) {
  return rows * ((head_dim + 15) / 16 * 16) + (2 * rows + 3) / 4 * 4;
}

// cuda.cu. Prefill takes paged_prefill_warpgroups() where it can.
template <DeviceKind>
void paged_attention_tiles(const PagedAttentionCuda& args);
// prefill_sm_90a.cu: sequences of more rows than paged_decode_rows, with the same bits, by wgmma; only where
// paged_prefill_takes_warpgroups(): the card has it, pages are of the queries' 16-bit dtype and of 8 tokens or more, D
// is 64, 96, 128 or 256, and pages lie as bulk copies want them.
template <DeviceKind>
bool paged_prefill_takes_warpgroups(const PagedAttentionCuda& args);
template <DeviceKind>
void paged_prefill_warpgroups(const PagedAttentionCuda& args);
// decode_sm_90a.cu: decoded sequences, each by a cluster of blocks with a warp for every chunk, with the same bits and
// in one launch; only where paged_decode_takes_clusters(): there are so few of them that all run at once, no longer
// than a cluster has warps, and their pages are of the queries' 16-bit dtype, of 16 tokens or more and aligned.
template <DeviceKind>
bool paged_decode_takes_clusters(const PagedAttentionCuda& args);
template <DeviceKind>
void paged_decode_clusters(const PagedAttentionCuda& args);
template <DeviceKind>
void kv_append_rows(const KvAppendCuda& args);
template <DeviceKind>
void kv_copy_page_pairs(const KvCopyCuda& args);

}  // namespace lathe::kernels
