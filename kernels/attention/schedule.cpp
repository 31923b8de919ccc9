#include "kernels/attention/schedule.h"

#include <algorithm>
#include <memory>

#include "core/memory.h"
#include "kernels/dispatch.h"

namespace lathe::kernels {
namespace {

// A task below this many products is not worth handing to another thread.
constexpr int64_t products_least = 1 << 16;

// A thread's memory for one use, tagged workspace: it only grows, so that a call allocates nothing once the largest
// shape has been seen. Holds what earlier calls left there; stays valid until the thread asks for more of the same use.
class Scratch {
 public:
  // At least `floats` floats, aligned to 64 bytes.
  float* get(int64_t floats) {
    const int64_t bytes = floats * static_cast<int64_t>(sizeof(float));
    if (storage_ == nullptr || storage_->nbytes() < bytes) {
      storage_.reset();  // the old one's memory first
      storage_ = Storage::allocate(bytes, Device{}, MemoryTag::workspace);
    }
    return static_cast<float*>(storage_->data());
  }

 private:
  std::shared_ptr<Storage> storage_;
};

thread_local Scratch call_scratch;  // of the whole call, read by the tasks of other threads
thread_local Scratch task_scratch;  // of one task

// ---- forward ----

// Rows of a tile share the copy of each chunk; more than these cost cache and balance and gain nothing.
constexpr int64_t rows_wanted = 384;
constexpr int64_t tokens_most = 128;
// Partial results of split tiles are kept to 16 MiB.
constexpr int64_t partial_floats_most = 1 << 22;

struct TileIndex {
  int32_t sequence, index;
};

// Tiles of a call, the products of one kv head, and the rows and chunks of its largest tiles.
struct Size {
  int64_t tiles = 0, products = 0, rows = 0, chunks = 0;
};

struct Plan {
  const AttentionTileArgs::Call& call;
  int64_t tile_tokens;
  FunctionRef<AttentionSequence(int64_t)> sequence;

  int64_t tiles_of(const AttentionSequence& s) const { return (s.tokens + tile_tokens - 1) / tile_tokens; }

  AttentionTileArgs tile(TileIndex at, int64_t kv_head) const {
    const AttentionSequence s = sequence(at.sequence);
    const int64_t skipped = at.index * tile_tokens, window = call.params.window;
    AttentionTileArgs tile{};
    tile.call = &call;
    tile.keys = s.keys;
    tile.first_token = s.first_token + skipped;
    tile.tokens = std::min(tile_tokens, s.tokens - skipped);
    tile.first_position = s.first_position + skipped;
    tile.kv_head = kv_head;
    if (window > 0) tile.chunk_begin = std::max<int64_t>(0, tile.first_position + 1 - window) / attention_chunk;
    tile.chunk_end = (tile.first_position + tile.tokens + attention_chunk - 1) / attention_chunk;
    return tile;
  }

  Size size(int64_t sequences) const {
    Size size;
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t i = tiles_of(sequence(s)); i-- > 0;) {
        const AttentionTileArgs tile = this->tile({static_cast<int32_t>(s), static_cast<int32_t>(i)}, 0);
        const int64_t rows = tile.tokens * call.group;
        ++size.tiles;
        size.products += 2 * rows * (tile.chunk_end - tile.chunk_begin) * attention_chunk * call.head_dim;
        size.rows = std::max(size.rows, rows);
        size.chunks = std::max(size.chunks, tile.chunk_end);
      }
    }
    return size;
  }

  // Each sequence's longest tiles first, for balance.
  void list(int64_t sequences, TileIndex* tiles) const {
    for (int64_t s = 0; s < sequences; ++s)
      for (int64_t i = tiles_of(sequence(s)); i-- > 0;) *tiles++ = {static_cast<int32_t>(s), static_cast<int32_t>(i)};
  }
};

float* tile_scratch(const AttentionTileArgs& tile) {
  return task_scratch.get(attention_tile_scratch_floats(tile.tokens * tile.call->group, tile.call->padded_dim));
}

void run_whole(const Plan& plan, const TileIndex* tiles, int64_t count, int64_t grain) {
  const int64_t kv_heads = plan.call.kv_heads;
  const auto tile_at = [&](int64_t i) { return plan.tile(tiles[i / kv_heads], i % kv_heads); };
  parallel_for(count * kv_heads, grain, [&](int64_t begin, int64_t end) {
    AttentionTileArgs tile = tile_at(begin);
    for (int64_t i = begin; i < end; ++i) {
      AttentionTileArgs next{};
      if (i + 1 < end) next = tile_at(i + 1), tile.next = &next;
      tile.scratch = tile_scratch(tile);
      with_isa([&]<Isa isa>() { attention_tile<isa>(tile); });
      tile = next;
    }
  });
}

// One slot of partials for each tile and kv head, all of the size that the largest needs.
struct Slots {
  float* base;
  int64_t rows, chunks, padded_dim;

  static int64_t floats(int64_t rows, int64_t chunks, int64_t padded_dim) {
    return rows * chunks * (padded_dim + 2) + 3 * row_padding;
  }
  AttentionTileArgs::Partials at(int64_t slot) const {
    float* start = base + slot * floats(rows, chunks, padded_dim);
    return {start, start + rows * chunks + row_padding, start + 2 * (rows * chunks + row_padding)};
  }
};

void run_split(const Plan& plan, const TileIndex* tiles, int64_t count, int64_t pieces, const Slots& slots) {
  const int64_t kv_heads = plan.call.kv_heads, tasks = count * kv_heads;
  const auto tile_at = [&](int64_t i) {
    AttentionTileArgs tile = plan.tile(tiles[i / kv_heads], i % kv_heads);
    tile.partials = slots.at(i);
    tile.scratch = tile_scratch(tile);
    return tile;
  };
  parallel_for(tasks * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      AttentionTileArgs tile = tile_at(i / pieces);
      const int64_t piece = i % pieces, chunks = tile.chunk_end - tile.chunk_begin, first = tile.chunk_begin;
      tile.chunk_begin = first + chunks * piece / pieces;
      tile.chunk_end = first + chunks * (piece + 1) / pieces;
      with_isa([&]<Isa isa>() { attention_tile_chunks<isa>(tile); });
    }
  });
  parallel_for(tasks, tasks, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) with_isa([&]<Isa isa>() { attention_tile_merge<isa>(tile_at(i)); });
  });
}

// ---- backward ----

// Which of the two ways of cutting the backward ends first: one pass makes five products a pair of tiles, two passes
// make seven between them but leave many more pieces to share out.
bool in_one_pass(int64_t tasks, int64_t threads) {
  const int64_t rounds = (tasks + threads - 1) / threads;
  return 5 * rounds * threads <= 7 * tasks;
}

struct GradientPlan {
  const AttentionGradientArgs::Call& call;
  std::span<const int32_t> bounds;
  int64_t longest = 0, products = 0;  // of the longest sequence the tokens; products of all for one kv head

  GradientPlan(const AttentionGradientArgs::Call& all, std::span<const int32_t> cu_seqlens)
      : call(all), bounds(cu_seqlens) {
    for (int64_t s = 0; s < sequences(); ++s) {
      const int64_t length = bounds[s + 1] - bounds[s];
      longest = std::max(longest, length);
      products += 4 * length * length * call.head_dim * call.group;
    }
  }

  int64_t sequences() const { return static_cast<int64_t>(bounds.size()) - 1; }

  // Every sequence and kv head, whole (pieces = 1) or its pieces of one chunk each; one past a shorter sequence's end
  // is nothing.
  void run(int64_t pieces, void (*body)(const AttentionGradientArgs&)) const {
    const int64_t scratch_floats = attention_gradient_scratch_floats(longest, call.padded_dim);
    const int64_t tasks = sequences() * call.kv_heads * pieces;
    const int64_t grain = std::max<int64_t>(1, products_least * tasks / std::max<int64_t>(1, products * call.kv_heads));
    parallel_for(tasks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t s = i / pieces / call.kv_heads, kv_head = i / pieces % call.kv_heads, piece = i % pieces;
        const int64_t start = bounds[s], length = bounds[s + 1] - start;
        const int64_t chunks = (length + attention_chunk - 1) / attention_chunk;
        if (piece >= chunks) continue;
        body({.call = &call,
              .start = start,
              .length = length,
              .kv_head = kv_head,
              .begin = piece,
              .end = pieces == 1 ? chunks : piece + 1,
              .scratch = task_scratch.get(scratch_floats)});
      }
    });
  }
};

}  // namespace

AttentionTileArgs::Call attention_tile_call(const Tensor& out, const Tensor& lse, const Tensor& q, int64_t kv_heads,
                                            const AttentionParams& params) {
  return {.q = head_rows_of(q),
          .out = head_rows_of(out),
          .lse = lse.defined() ? lse.data<float>() : nullptr,
          .lse_head = lse.defined() ? lse.stride(0) : 0,
          .head_dim = q.dim(2),
          .padded_dim = padded_head_dim(q.dim(2)),
          .kv_heads = kv_heads,
          .group = q.dim(1) / kv_heads,
          .params = params,
          .dtype = q.dtype(),
          .kv_dtype = q.dtype(),
          .pairs = multiplies_pairs(active_isa())};
}

void run_attention_tiles(const AttentionTileArgs::Call& call, int64_t sequences,
                         FunctionRef<AttentionSequence(int64_t)> sequence) {
  const Plan plan{call, std::clamp<int64_t>(rows_wanted / call.group, 8, tokens_most), sequence};
  const Size size = plan.size(sequences);
  if (size.tiles == 0) return;

  const int64_t tasks = size.tiles * call.kv_heads, threads = thread_count();
  const int64_t slot_floats = Slots::floats(size.rows, size.chunks, call.padded_dim);
  const bool split = tasks < 2 * threads && threads > 1 && size.chunks > 1 &&
                     size.products * call.kv_heads >= threads * products_least &&
                     tasks * slot_floats <= partial_floats_most;

  const int64_t index_floats = (2 * size.tiles + row_padding - 1) / row_padding * row_padding;
  float* scratch = call_scratch.get(index_floats + (split ? tasks * slot_floats : 0));
  auto* tiles = reinterpret_cast<TileIndex*>(scratch);
  plan.list(sequences, tiles);
  if (split) {
    const int64_t pieces = std::min(size.chunks, (4 * threads + tasks - 1) / tasks);
    run_split(plan, tiles, size.tiles, pieces, {scratch + index_floats, size.rows, size.chunks, call.padded_dim});
  } else {
    // A range of tasks prefetches the next one's keys during each but its last, so ranges of short tasks are long.
    const int64_t balanced = threads == 1 ? tasks : tasks / (4 * threads);
    const int64_t least = products_least * size.tiles / size.products;
    run_whole(plan, tiles, size.tiles, std::max<int64_t>({1, least, size.rows <= attention_few_rows ? balanced : 0}));
  }
}

void run_attention_gradients(AttentionGradientArgs::Call call, std::span<const int32_t> bounds) {
  call.dots = call_scratch.get(call.heads * call.tokens);
  call.pairs = multiplies_pairs(active_isa());
  const GradientPlan plan(call, bounds);
  const int64_t chunks = (plan.longest + attention_chunk - 1) / attention_chunk;
  if (chunks <= 1 || in_one_pass(plan.sequences() * call.kv_heads, thread_count())) {
    with_isa([&]<Isa isa>() { plan.run(1, attention_gradients<isa>); });
  } else {
    with_isa([&]<Isa isa>() {
      plan.run(1, attention_row_dots<isa>);
      plan.run(chunks, attention_key_gradients<isa>);
      plan.run(chunks, attention_query_gradients<isa>);
    });
  }
}

}  // namespace lathe::kernels
