// The Right of codes_block.cuh for nf4 and int8, which lie as bitsandbytes has them: rows of codes, and scales apart.
#pragma once

#include "kernels/matmul/cuda/codes_block.cuh"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/weights/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Scales come in chunks of so many stages along k, one chunk ahead in registers and the next but one on its way.
inline constexpr int chunk_steps = 16;

// Of a column's codes in a stage, and from column to column of a team's stages: padded, so that lanes of eight columns
// meet no bank twice.
template <class Codes>
inline constexpr int column_bytes = block_k* Codes::bits / 8;
template <class Codes>
inline constexpr int column_pitch = team_stages* column_bytes<Codes> + 16;

// Some 28 KB of codes are under way in a block.
template <class Codes>
inline constexpr int rounds_ahead = Codes::bits == 8 ? 4 : 7;

template <class T, class Codes_, class Block>
class WeightReader {
 public:
  using Codes = Codes_;
  static constexpr int rounds = rounds_ahead<Codes>, parts = Block::parts;
  struct Memory {
    alignas(16) uint8_t codes[rounds][Block::weight_teams][codes_columns * column_pitch<Codes>];
    float scales[2][chunk_steps][codes_columns + 1];  // lanes that store a column's meet no bank twice
    typename Codes::Shared shared;
  };

  __device__ __forceinline__ WeightReader(const Codes& codes, const typename Codes::Place& place, Memory& memory,
                                          const TeamThread& thread, int64_t first_column, int64_t columns, int64_t k)
      : codes_(codes),
        from_(place),
        memory_(memory),
        thread_(thread),
        first_column_(static_cast<int>(first_column)),
        columns_(static_cast<int>(columns)),
        k_(static_cast<int>(k)) {
    const int row = thread.thread / vectors, vector = thread.thread % vectors;
    place_ = row * column_pitch<Codes> + vector * 16;
    columns_left_ = columns_ - first_column_ - row;
    next_codes_ = place.codes + (columns_left_ <= 0 ? 0
                                                    : (first_column + row) * row_bytes() +
                                                          thread.first_stage() * column_bytes<Codes> + vector * 16);
  }

  __device__ __forceinline__ void prefetch() const {
    prefetch_rows<codes_columns, threads>(DenseOperand<uint8_t>{from_.codes, row_bytes(), true}, first_column_,
                                          columns_, row_bytes());
  }

  // Columns past the last get zeros.
  __device__ __forceinline__ uint8_t* codes_of_team() const { return memory_.codes[0][thread_.team]; }
  __device__ __forceinline__ void copy(uint8_t* place, int count) {
    if (thread_.thread % vectors / (vectors / team_stages) < count) {
      LATHE_UNROLL
      for (int row = 0; row < codes_columns; row += rows_at_once)
        cp_async_16(place + place_ + row * column_pitch<Codes>,
                    next_codes_ + (row < columns_left_ ? row * row_bytes() : 0), row < columns_left_ ? 16 : 0);
    }
    if (columns_left_ > 0) next_codes_ += parts * column_bytes<Codes>;
  }

  __device__ __forceinline__ void begin_tables() {
    codes_.fill(memory_.shared, index(), threads);
    first_ = read_scales(0);
    next_ = read_scales(1);
  }
  __device__ __forceinline__ void begin() { store_scales(0, first_); }

  __device__ __forceinline__ void decode(WeightFragments<T>& fragments, int step, const uint8_t* place,
                                         int stage) const {
    constexpr int half_bytes = column_bytes<Codes> / 2;
    LATHE_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int column = thread_.column() + 8 * r;
      const float scale = memory_.scales[step / chunk_steps % 2][step % chunk_steps][column];
      const typename Codes::Pairs pairs(
          place + column * column_pitch<Codes> + (2 * stage + thread_.half()) * half_bytes, thread_.quarter());
      LATHE_UNROLL
      for (int eight = 0; eight < block_k / 16; ++eight) {
        const float2 two = pairs.at(eight, memory_.shared);
        fragments.at[eight / 2].registers[eight % 2 * 2 + r] = pack_pair(two.x * scale, two.y * scale, T{});
      }
    }
  }

  // Half a chunk after the last use of what is overwritten.
  __device__ __forceinline__ void advance(int round) {
    if (round % chunk_rounds != chunk_rounds / 2) return;
    store_scales(round / chunk_rounds + 1, next_);
    next_ = read_scales(round / chunk_rounds + 2);
  }

 private:
  // Of a column's codes in a team's stages.
  static constexpr int vectors = team_stages * column_bytes<Codes> / 16, rows_at_once = team_threads / vectors;
  static constexpr int threads = Block::weight_teams * team_threads;  // that share a weight
  static constexpr int chunk_rounds = chunk_steps / parts;
  static constexpr int scales_of_thread = chunk_steps * codes_columns / threads;
  struct RawScales {
    typename Codes::RawScale at[scales_of_thread];
  };

  // Among the weight's threads.
  __device__ __forceinline__ int index() const { return thread_.team * team_threads + thread_.thread; }
  // This thread's scales of a chunk: of a column, side by side.
  __device__ __forceinline__ int scale_column() const { return index() * scales_of_thread / chunk_steps; }
  __device__ __forceinline__ int scale_step() const { return index() * scales_of_thread % chunk_steps; }
  __device__ __forceinline__ int steps() const { return k_ / block_k; }
  __device__ __forceinline__ int64_t row_bytes() const { return int64_t{k_} / block_k * column_bytes<Codes>; }

  __device__ __forceinline__ RawScales read_scales(int chunk) const {
    RawScales raw = {};
    const int row = first_column_ + scale_column();
    if (row >= columns_) return raw;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      const int step = chunk * chunk_steps + scale_step() + i;
      if (step < steps()) raw.at[i] = codes_.read_scale(from_, row, step * block_k, k_);
    }
    return raw;
  }

  __device__ __forceinline__ void store_scales(int chunk, const RawScales& raw) const {
    const bool there = first_column_ + scale_column() < columns_;
    LATHE_UNROLL
    for (int i = 0; i < scales_of_thread; ++i) {
      const float scale = there ? codes_.scale(from_, raw.at[i], memory_.shared) : 0.0f;
      memory_.scales[chunk % 2][scale_step() + i][scale_column()] = scale;
    }
  }

  const Codes& codes_;
  const typename Codes::Place& from_;
  Memory& memory_;
  const TeamThread thread_;
  int first_column_, columns_, k_;
  // What this thread copies.
  const uint8_t* next_codes_;
  int place_, columns_left_;            // columns_left_: from this thread's first on
  alignas(16) RawScales first_, next_;  // gcc clears them by vectors
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
