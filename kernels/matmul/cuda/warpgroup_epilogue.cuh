// How the sums of a warp leave a product by wgmma: from its registers, whose shape that instruction decides.
#pragma once

#include "kernels/linear_cross_entropy/row_statistics.cuh"
#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/gated_epilogue.cuh"
#include "kernels/matmul/cuda/mainloop.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// What a warp's sums pass through on their way out (finish_rows).
using SumsTile = SharedTile<float, 16, 32, Padded<32>>;

// Four neighbouring fragments of eight columns into the tile. first(j): where the sums of fragment j begin.
template <int count, class First>
__device__ __forceinline__ void store_chunk(SumsTile& tile, const float (&sums)[count], First first) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  LATHE_UNROLL
  for (int j = 0; j < SumsTile::columns / 8; ++j) {
    LATHE_UNROLL
    for (int h = 0; h < 2; ++h)
      store_vector(tile.elements + SumsTile::offset(fragment_row(lane, 2 * h), 8 * j + fragment_column(lane, 2 * h)),
                   pack_pair(sums[first(j) + 2 * h], sums[first(j) + 2 * h + 1], float{}));
  }
}

// A warp's 16 rows of sums, as wgmma leaves them, into out: 32 columns at a time by way of shared memory, where a lane
// finds eight neighbours of a row. finish() stands here once for all columns, not once for each 32: so the loop.
template <class T, int count>
__device__ __forceinline__ void finish_rows(const Epilogue<T>& e, const float (&sums)[count], SumsTile& tile,
                                            int64_t first_row, int64_t first_column) {
  static_assert(pair_passes<SumsTile> == 1);
  constexpr int chunks = 2 * count / SumsTile::columns, groups = SumsTile::columns / 8;
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    LATHE_UNROLL
    for (int c = 0; c < chunks; ++c) {
      if (c == chunk) store_chunk(tile, sums, [c](int j) { return 4 * (groups * c + j); });
    }
    __syncwarp();  // the sums are there
#pragma unroll 1
    for (int i = lane; i < 16 * groups; i += 32)
      finish_eight(e, tile, i / groups, i % groups * 8, first_row, first_column + SumsTile::columns * chunk);
    __syncwarp();  // and have been read
  }
}

// The same of gate's sums and, in the second half, up's of the same columns, 16 of either at a time: of their product a
// lane has eight neighbours.
template <class T, int count>
__device__ __forceinline__ void finish_gated_rows(const KeptGatedEpilogue<T>& e, GateKind gate,
                                                  const float (&sums)[count], SumsTile& tile, int64_t first_row,
                                                  int64_t first_column, const GatedBias<T>& bias) {
  constexpr int columns = SumsTile::columns / 2, chunks = count / columns;
  static_assert(std::is_same_v<GatedSums<16, columns>, SumsTile>);
  const int lane = static_cast<int>(threadIdx.x % 32), row = lane / 2, within = lane % 2 * 8;
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    LATHE_UNROLL
    for (int c = 0; c < chunks; ++c) {
      if (c == chunk) store_chunk(tile, sums, [c](int j) { return j / 2 * (count / 2) + 4 * (2 * c + j % 2); });
    }
    __syncwarp();  // the sums are there
    const auto finish = [&](auto kind) {
      finish_gated_eight<T, decltype(kind), 16, columns>(e, tile, row, within, first_row,
                                                         first_column + columns * chunk, bias);
    };
    gate == GateKind::silu ? finish(Silu{}) : gate == GateKind::gelu_tanh ? finish(GeluTanh{}) : finish(ClampedSilu{});
    __syncwarp();  // and have been read
  }
}

// The same where nothing is left but to scale and to round: half as many bytes go through shared memory, and a fifth of
// the instructions, during which the tensor cores stand still. Columns [first_column, + 2 · count) are all in out.
template <class T, int count>
__device__ __forceinline__ void round_rows(const Epilogue<T>& e, const float (&sums)[count], SumsTile& memory,
                                           int64_t first_row, int64_t first_column) {
  using Tile = PaddedTile<T, 16, 64>;
  static_assert(sizeof(Tile) <= sizeof(SumsTile) && pair_passes<Tile> == 1 && row_order_passes<Tile> == 1);
  Tile& tile = reinterpret_cast<Tile&>(memory);
  const int lane = static_cast<int>(threadIdx.x % 32), row = lane / 8, column = lane % 8 * 8;
  T* const out = static_cast<T*>(e.out.data) + (first_row + row) * e.out.stride + first_column + column;
  const int rows = e.m - first_row < 16 ? static_cast<int>(e.m - first_row) : 16;
  LATHE_UNROLL
  for (int chunk = 0; chunk < 2 * count / 64; ++chunk) {
    LATHE_UNROLL
    for (int j = 0; j < 8; ++j) {
      LATHE_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int first = 4 * (8 * chunk + j) + 2 * h;
        store_vector(tile.elements + Tile::offset(fragment_row(lane, 2 * h), 8 * j + fragment_column(lane, 2 * h)),
                     pack_pair(sums[first] * e.scale, sums[first + 1] * e.scale, T{}));
      }
    }
    __syncwarp();  // the rounded sums are there
    LATHE_UNROLL
    for (int i = 0; i < 16; i += 4)
      if (row + i < rows)
        store_vector(out + i * e.out.stride + 64 * chunk,
                     load_vector<uint4>(tile.elements + Tile::offset(row + i, column)));
    __syncwarp();  // and have been read
  }
}

// Whether that is so of every column.
template <class T>
__device__ __forceinline__ bool only_rounds(const Epilogue<T>& e) {
  return e.bias.data == nullptr && e.residual.data == nullptr && e.out.dtype != DType::f32 &&
         reinterpret_cast<uintptr_t>(e.out.data) % 16 == 0 && e.out.stride % 8 == 0;
}

// Where a thread's pairs of neighbours go as f32, by themselves or onto f32 that is there: logits and gradients of
// weights. Four lanes write a sector of 32 bytes, so that nothing need go through shared memory.
template <class T, int count>
__device__ __forceinline__ void store_pairs(const Epilogue<T>& e, const float (&sums)[count], int64_t first_row,
                                            int64_t first_column) {
  constexpr int together = 8;  // pairs whose loads are under way together: they may lie where others are stored
  const int lane = static_cast<int>(threadIdx.x) % 32;
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h) {
    const int64_t row = first_row + fragment_row(lane, 2 * h), column = first_column + fragment_column(lane, 2 * h);
    if (row >= e.m) return;
    float* const out = static_cast<float*>(e.out.data) + row * e.out.stride + column;
    const float* const onto = static_cast<const float*>(e.residual.data) + row * e.residual.stride + column;
    LATHE_UNROLL
    for (int first = 0; first < count / 4; first += together) {
      float2 before[together];
      LATHE_UNROLL
      for (int j = 0; j < together; ++j)
        before[j] = e.residual.data != nullptr && column + 8 * (first + j) < e.n
                        ? load_vector<float2>(onto + 8 * (first + j))
                        : make_float2(0.0f, 0.0f);
      LATHE_UNROLL
      for (int j = 0; j < together; ++j) {
        const int i = 4 * (first + j) + 2 * h;
        float2 pair = make_float2(sums[i] * e.scale, sums[i + 1] * e.scale);
        if (e.residual.data != nullptr) pair = make_float2(pair.x + before[j].x, pair.y + before[j].y);
        if (column + 8 * (first + j) < e.n) store_vector(out + 8 * (first + j), pair);
      }
    }
  }
}

// The same of logits, and beside each 64 columns of a row their statistics, for which cross entropy would else read
// them again; nothing scales them. Stores and exponentials take turns, so that there is something to issue while stores
// wait for the cache.
template <class T, int count>
__device__ __forceinline__ void store_with_statistics(const Epilogue<T>& e, const ColumnStatistics& statistics,
                                                      const float (&sums)[count], int64_t first_row,
                                                      int64_t first_column) {
  constexpr int together = statistics_group / 8;  // pairs of a lane
  const int lane = static_cast<int>(threadIdx.x) % 32;
  LATHE_UNROLL
  for (int first = 0; first < count / 4; first += together) {
    LATHE_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int64_t row = first_row + fragment_row(lane, 2 * h), begin = first_column + 8 * first,
                    column = begin + fragment_column(lane, 2 * h);
      float* const out = static_cast<float*>(e.out.data) + row * e.out.stride + column;
      float2 pairs[together];
      LATHE_UNROLL
      for (int j = 0; j < together; ++j) {
        const int i = 4 * (first + j) + 2 * h;
        const bool inside = column + 8 * j < e.n;
        pairs[j] = make_float2(sums[i], sums[i + 1]);
        if (row < e.m && inside) store_vector(out + 8 * j, pairs[j]);
        pairs[j] = inside ? make_float2(scaled_logit(pairs[j].x, 0.0f, statistics.inverse_temperature),
                                        scaled_logit(pairs[j].y, 0.0f, statistics.inverse_temperature))
                          : make_float2(-INFINITY, -INFINITY);
      }
      const RowStatistics group = group_statistics(pairs);
      if (lane % statistics_lanes == 0 && row < e.m && begin < e.n)
        store_vector(statistics.pairs + 2 * (row * statistics.groups + begin / statistics_group),
                     make_float2(group.largest, group.sum));
    }
  }
}

// Whether these two can: an even number of columns, from multiples of eight bytes on.
template <class T>
__host__ __device__ __forceinline__ bool takes_pairs(const Epilogue<T>& e) {
  const auto serves = [](const ProductMatrix& matrix) {
    return matrix.dtype == DType::f32 && reinterpret_cast<uintptr_t>(matrix.data) % 8 == 0 && matrix.stride % 2 == 0;
  };
  return e.bias.data == nullptr && e.n % 2 == 0 && serves(e.out) && (e.residual.data == nullptr || serves(e.residual));
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
