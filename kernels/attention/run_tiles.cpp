#include "kernels/attention/run_tiles.h"

#include <algorithm>

#include "kernels/attention/scratch.h"

namespace lathe::kernels {
namespace {

// Rows of a tile share the copy of each chunk; more than these cost cache and balance and gain nothing.
constexpr int64_t rows_wanted = 384;
constexpr int64_t tokens_most = 128;
// A task below this many products is not worth handing to another thread.
constexpr int64_t products_least = 1 << 16;
// Partial results of split tiles are kept to 16 MiB.
constexpr int64_t partial_floats_most = 1 << 22;

struct Tile {
  TileSequence sequence;  // narrowed to the tile's tokens
  int64_t chunk_begin, chunk_end;
};

struct TileIndex {
  int32_t sequence, index;
};

// Tiles of a call, the products of one kv head, and the rows and chunks of its largest tiles.
struct Size {
  int64_t tiles = 0, products = 0, rows = 0, chunks = 0;
};

struct Plan {
  const TileCall& call;
  int64_t kv_heads, tile_tokens;
  FunctionRef<TileSequence(int64_t)> sequence;

  int64_t tiles_of(const TileSequence& s) const { return (s.tokens + tile_tokens - 1) / tile_tokens; }

  Tile tile(int64_t sequence_index, int64_t index) const {
    Tile tile{sequence(sequence_index), 0, 0};
    TileSequence& s = tile.sequence;
    const int64_t skipped = index * tile_tokens;
    s.first_token += skipped;
    s.first_position += skipped;
    s.tokens = std::min(tile_tokens, s.tokens - skipped);
    if (call.window > 0) tile.chunk_begin = std::max<int64_t>(0, s.first_position + 1 - call.window) / attention_chunk;
    tile.chunk_end = (s.first_position + s.tokens + attention_chunk - 1) / attention_chunk;
    return tile;
  }

  TileTask task(const Tile& tile, int64_t kv_head) const {
    TileTask task{};
    task.call = &call;
    task.keys = tile.sequence.keys;
    task.first_token = tile.sequence.first_token;
    task.tokens = tile.sequence.tokens;
    task.first_position = tile.sequence.first_position;
    task.kv_head = kv_head;
    task.chunk_begin = tile.chunk_begin;
    task.chunk_end = tile.chunk_end;
    return task;
  }

  Size size(int64_t sequences) const {
    Size size;
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t i = tiles_of(sequence(s)); i-- > 0;) {
        const Tile tile = this->tile(s, i);
        const int64_t rows = tile.sequence.tokens * call.group;
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

float* task_scratch(const Plan& plan, int64_t tokens) {
  return attention_scratch(ScratchUse::task, tile_scratch_floats(tokens * plan.call.group, plan.call.padded_dim));
}

void run_whole(const Plan& plan, const TileIndex* tiles, int64_t count, int64_t grain) {
  const auto task_of = [&](int64_t i) {
    const TileIndex where = tiles[i / plan.kv_heads];
    return plan.task(plan.tile(where.sequence, where.index), i % plan.kv_heads);
  };
  parallel_for(count * plan.kv_heads, grain, [&](int64_t begin, int64_t end) {
    TileTask task = task_of(begin);
    for (int64_t i = begin; i < end; ++i) {
      TileTask after{};
      if (i + 1 < end) after = task_of(i + 1), task.after = &after;
      task.scratch = task_scratch(plan, task.tokens);
      cpu::attention_tile(task);
      task = after;
    }
  });
}

// One slot of partials for each tile and kv head, all of the size that the largest needs.
struct Slots {
  float* base;
  int64_t rows, chunks, padded_dim;

  static int64_t floats(int64_t rows, int64_t chunks, int64_t padded_dim) {
    return rows * chunks * (padded_dim + 2) + 3 * tile_padding;
  }
  TilePartials at(int64_t slot) const {
    float* start = base + slot * floats(rows, chunks, padded_dim);
    return {start, start + rows * chunks + tile_padding, start + 2 * (rows * chunks + tile_padding)};
  }
};

void run_split(const Plan& plan, const TileIndex* tiles, int64_t count, int64_t pieces, const Slots& slots) {
  const int64_t tasks = count * plan.kv_heads;
  const auto task_of = [&](int64_t i) {
    const TileIndex where = tiles[i / plan.kv_heads];
    TileTask task = plan.task(plan.tile(where.sequence, where.index), i % plan.kv_heads);
    task.partials = slots.at(i);
    task.scratch = task_scratch(plan, task.tokens);
    return task;
  };
  parallel_for(tasks * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      TileTask task = task_of(i / pieces);
      const int64_t piece = i % pieces, chunks = task.chunk_end - task.chunk_begin, first = task.chunk_begin;
      task.chunk_begin = first + chunks * piece / pieces;
      task.chunk_end = first + chunks * (piece + 1) / pieces;
      cpu::attention_tile_chunks(task);
    }
  });
  parallel_for(tasks, tasks, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) cpu::attention_tile_merge(task_of(i));
  });
}

}  // namespace

TileCall tile_call(const Tensor& out, const Tensor& lse, const Tensor& q, int64_t kv_heads,
                   const AttentionParams& params) {
  TileCall call{};
  call.q = q.raw();
  call.out = out.raw();
  call.lse = lse.defined() ? lse.data<float>() : nullptr;
  call.q_token = q.stride(0);
  call.q_head = q.stride(1);
  call.out_token = out.stride(0);
  call.out_head = out.stride(1);
  call.lse_head = lse.defined() ? lse.stride(0) : 0;
  call.head_dim = q.dim(2);
  call.padded_dim = padded_head_dim(call.head_dim);
  call.kv_heads = kv_heads;
  call.group = q.dim(1) / kv_heads;
  call.window = params.window;
  call.scale = params.scale;
  call.softcap = params.softcap;
  call.dtype = q.dtype();
  call.kv_dtype = q.dtype();
  return call;
}

void run_tiles(const TileCall& call, int64_t kv_heads, int64_t sequences, FunctionRef<TileSequence(int64_t)> sequence) {
  const Plan plan{call, kv_heads, std::clamp<int64_t>(rows_wanted / call.group, 8, tokens_most), sequence};
  const Size size = plan.size(sequences);
  if (size.tiles == 0) return;

  const int64_t tasks = size.tiles * kv_heads, threads = thread_count();
  const int64_t slot_floats = Slots::floats(size.rows, size.chunks, call.padded_dim);
  const bool split = tasks < 2 * threads && threads > 1 && size.chunks > 1 &&
                     size.products * kv_heads >= threads * products_least && tasks * slot_floats <= partial_floats_most;

  const int64_t index_floats = (2 * size.tiles + tile_padding - 1) / tile_padding * tile_padding;
  float* scratch = attention_scratch(ScratchUse::call, index_floats + (split ? tasks * slot_floats : 0));
  auto* tiles = reinterpret_cast<TileIndex*>(scratch);
  plan.list(sequences, tiles);
  if (split) {
    const int64_t pieces = std::min(size.chunks, (4 * threads + tasks - 1) / tasks);
    run_split(plan, tiles, size.tiles, pieces, {scratch + index_floats, size.rows, size.chunks, call.padded_dim});
  } else {
    // A range of tasks asks for the next one's keys during each but its last, so ranges of short tasks are long.
    const int64_t balanced = threads == 1 ? tasks : tasks / (4 * threads);
    const int64_t least = products_least * size.tiles / size.products;
    run_whole(plan, tiles, size.tiles, std::max<int64_t>({1, least, size.rows <= rows_that_wait ? balanced : 0}));
  }
}

}  // namespace lathe::kernels
