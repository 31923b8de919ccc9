// The Right of codes_block.cuh for ggml's blocks.
#pragma once

#include "kernels/matmul/cuda/codes_block.cuh"
#include "kernels/matmul/weights/ggml/cuda/bodies.h"
#include "kernels/matmul/weights/ggml/cuda/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

struct TileCodes : GgmlPlace {
  using Place = GgmlPlace;
  int64_t tile_bytes;
};

// Codes in hand or on their way: 26 KB and more under way in each of the two blocks of a multiprocessor.
inline constexpr int bytes_alone = 40 << 10, bytes_gated = 24 << 10, most_rounds = 8;

template <class T, class Format, class Block, int bytes>
class TileReader {
  using Place = ggml::Tiles<Format>;
  static_assert(Place::rows == codes_columns && ggml::stage_neighbours == block_k);
  static_assert(Place::stage_bytes % 16 == 0);
  static constexpr int parts = Block::parts, whole_rounds = bytes / (parts * Place::stage_bytes);

 public:
  using Codes = TileCodes;
  static constexpr int rounds = whole_rounds < most_rounds ? whole_rounds : most_rounds;
  struct Memory : SharedGrid<Format> {
    alignas(16) uint8_t codes[rounds][Block::weight_teams][team_stages * Place::stage_bytes];
  };

  __device__ __forceinline__ TileReader(const TileCodes& codes, const GgmlPlace& place, Memory& memory,
                                        const TeamThread& thread, int64_t first_column, int64_t, int64_t k)
      : memory_(memory),
        thread_(thread),
        tile_(place.tiles + first_column / Place::rows * codes.tile_bytes),
        tile_bytes_(codes.tile_bytes),
        next_codes_(tile_ + thread.first_stage() * Place::stage_bytes + thread.thread * 16),
        steps_(stages_along(k)) {}

  // What memory delivers to all blocks in some 8 µs.
  __device__ __forceinline__ void prefetch() const {
    constexpr int lines = 512, threads = Block::weight_teams * team_threads;
    LATHE_UNROLL
    for (int i = 0; i < lines / threads; ++i) {
      const int64_t at = (i * threads + thread_.team * team_threads + thread_.thread) * int64_t{128};
      if (at < tile_bytes_) prefetch_line(tile_ + at);
    }
  }

  __device__ __forceinline__ uint8_t* codes_of_team() const { return memory_.codes[0][thread_.team]; }
  __device__ __forceinline__ void copy(uint8_t* place, int count) {
    constexpr int vectors = team_stages * Place::stage_bytes / 16;
    const int thread = thread_.thread, here = count * (Place::stage_bytes / 16);
    LATHE_UNROLL
    for (int i = 0; i < vectors; i += team_threads)
      if (i + thread < here) cp_async_16(place + (i + thread) * 16, next_codes_ + i * 16);
    next_codes_ += parts * Place::stage_bytes;
  }

  __device__ __forceinline__ void begin_tables() {
    LATHE_UNROLL
    for (int i = 0; i < factors_ahead; ++i) next_[i] = factors_of(i);
    memory_.fill(thread_.team * team_threads + thread_.thread, Block::weight_teams * team_threads);
  }
  __device__ __forceinline__ void begin() const {}

  __device__ __forceinline__ void decode(WeightFragments<T>& fragments, int step, const uint8_t* place, int stage) {
    if (Place::is_k && stage == 0 && step % Place::block_stages < parts) take_factors(step / Place::block_stages);
    const uint8_t* from = place + stage * Place::stage_bytes;
    LATHE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int row = thread_.column() + 8 * r;
      const StageCodes<Format> codes(from, row, thread_.quarter(), thread_.half(), memory_);
      const StageScales<Format> scales(from, row, factors_.of[r], thread_.half());
      LATHE_UNROLL
      for (int i = 0; i < 2; ++i) {
        const uint32_t word = codes.word(i);
        const Scale<Format> scale = scales.of(i);
        uint32_t(&registers)[4] = fragments.at[i].registers;
        registers[r] = pack_pair(scale.factor(word, 0), scale.factor(word, 1), T{});
        registers[2 + r] = pack_pair(scale.factor(word, 2), scale.factor(word, 3), T{});
      }
    }
  }

  __device__ __forceinline__ void advance(int) const {}

 private:
  // Of both rows, of a K format's block.
  struct Factors {
    uint32_t of[2] = {0, 0};
  };
  // Blocks of a K format whose factors are on their way: two are eight stages, some 1000 cycles.
  static constexpr int factors_ahead = 2;
  static_assert(parts <= 4, "a team meets every block of a K format, which are four stages");

  __device__ __forceinline__ Factors factors_of(int block) const {
    if (!Place::is_k || block * Place::block_stages >= steps_) return {};
    const uint8_t* const factors = tile_ + int64_t{steps_} * Place::stage_bytes;
    return {{read_factors<Format>(factors, block, thread_.column()),
             read_factors<Format>(factors, block, thread_.column() + 8)}};
  }
  __device__ __forceinline__ void take_factors(int block) {
    factors_ = next_[0];
    LATHE_UNROLL
    for (int i = 0; i + 1 < factors_ahead; ++i) next_[i] = next_[i + 1];
    next_[factors_ahead - 1] = factors_of(block + factors_ahead);
  }

  Memory& memory_;
  const TeamThread thread_;
  const uint8_t* tile_;
  int64_t tile_bytes_;
  const uint8_t* next_codes_;  // what this thread copies
  int steps_;
  Factors factors_, next_[factors_ahead];
};

template <class T, class Format>
using AloneReader = TileReader<T, Format, CodesBlock<1>, bytes_alone>;
template <class T, class Format>
using GatedReader = TileReader<T, Format, CodesBlock<2>, bytes_gated>;

inline TileCodes codes_of(const GgmlTiles& weight) { return {{weight.data}, weight.tile_bytes}; }

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
