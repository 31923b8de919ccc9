// Keys and values in pages as attention's tiles take them (kernels/attention/cuda/attend.cuh).
#pragma once

#include "kernels/attention/cuda/attend.cuh"
#include "kernels/paged_attention/cuda.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

template <class T>
inline constexpr DType page_dtype_of = DType::f32;
template <>
inline constexpr DType page_dtype_of<bf16_t> = DType::bf16;
template <>
inline constexpr DType page_dtype_of<f16_t> = DType::f16;

// The 16-bit type that T is not.
template <class T>
struct OtherHalf {
  using type = f16_t;
};
template <>
struct OtherHalf<f16_t> {
  using type = bf16_t;
};

__device__ __forceinline__ float widen(int8_t value) { return static_cast<float>(value); }
template <class T>
__device__ __forceinline__ float widen(T value) {
  return to_float(value);
}

// Keys or values of one sequence and kv head.
struct SequenceRows {
  const void* data;
  int64_t page, token;  // strides, in elements
  const float* scales;  // i8
};

// How often a bank is asked while a warp stores 8 bytes of what each lane converted from 16 bytes of From: lanes are 16
// bytes times the types' sizes apart. (Not conflict-free; where pages are of another type than T, each is written once
// and read by all warps.)
template <class Tile, class From>
inline constexpr int convert_passes = bank_passes(8, [](int lane) {
  constexpr int vectors = Tile::columns / vector_elements<From>;
  return Tile::offset(lane / vectors, lane % vectors * vector_elements<From>) *
         static_cast<int>(sizeof(typename Tile::T));
});

// attention's loader for rows in pages. Pages of another type than T are widened or rounded to it on the way.
template <class T>
struct PagedKeys {
  SequenceRows k, v;
  const int32_t* table;
  DType dtype;
  int page_shift;      // log2 of the page size
  int64_t scale_page;  // stride of the scales
  int head_dim;
  bool aligned;

  template <int threads, class Tile>
  __device__ __forceinline__ void keys(Tile& tile, int first, int count) const {
    bring<threads>(k, tile, first, count);
  }
  template <int threads, class Tile>
  __device__ __forceinline__ void values(Tile& tile, int first, int count) const {
    bring<threads>(v, tile, first, count);
  }
  // What load_groups brought as it lies in the pages.
  template <int threads, class Tile>
  __device__ __forceinline__ void arrived(Tile& tile, int count) const {
    if constexpr (one_warp<threads, Tile>) {
      if (!in_groups() || dtype == page_dtype_of<T>) return;
      if (dtype == DType::i8) {
        widen_rows<int8_t>(tile, count);
      } else if constexpr (sizeof(T) == 4) {
        dtype == DType::bf16 ? widen_rows<bf16_t>(tile, count) : widen_rows<f16_t>(tile, count);
      } else {
        widen_rows<typename OtherHalf<T>::type>(tile, count);
      }
    }
  }

  // By a warp of several: a chunk's rows that in_groups() lie in pages of T. pages[g] holds rows 16 g to 16 g + 15.
  static constexpr int group_rows = 16, chunk_groups = flash::chunk / group_rows;
  __device__ __forceinline__ bool in_groups() const { return aligned && page_shift >= 4; }
  template <class Tile>
  __device__ __forceinline__ void copy_chunk(const SequenceRows& rows, Tile& tile, const int32_t (&pages)[chunk_groups],
                                             int count) const {
    copy_groups<T>(rows, tile, pages, count);
  }

 private:
  template <int threads, class Tile>
  __device__ __forceinline__ void bring(const SequenceRows& rows, Tile& tile, int first, int count) const {
    if constexpr (one_warp<threads, Tile>) {
      if (in_groups()) return load_groups(rows, tile, first, count);
    }
    load<threads>(rows, tile, first, count);
  }

  // ---- decode: a warp alone, which has nothing to hide a wait behind but its own copies ----

  // Where a row is at most a vector for each lane.
  template <int threads, class Tile>
  static constexpr bool one_warp = threads == 32 && Tile::vectors <= 32;

  // Sixteen neighbours of a sequence lie in one page: where they lie is looked up four times for a tile.

  // By cp.async; rows of another type than T come as they are, into the beginnings of the tile's, and the scales of i8,
  // four to a row, into its padding.
  template <class Tile>
  __device__ __forceinline__ void load_groups(const SequenceRows& rows, Tile& tile, int first, int count) const {
    int32_t pages[Tile::rows / group_rows];
    LATHE_UNROLL
    for (int g = 0; g < Tile::rows / group_rows; ++g)
      pages[g] = g * group_rows < count ? table[(first + g * group_rows) >> page_shift] : 0;
    if (dtype == page_dtype_of<T>) return copy_groups<T>(rows, tile, pages, count);
    if (dtype == DType::i8) {
      copy_groups<int8_t>(rows, tile, pages, count);
      return copy_scales(rows, tile, pages, count);
    }
    if constexpr (sizeof(T) == 4) {
      copy_groups<bf16_t>(rows, tile, pages, count);  // or f16: as many bytes
    } else {
      copy_groups<typename OtherHalf<T>::type>(rows, tile, pages, count);
    }
  }

  template <class From, class Tile, int groups>
  __device__ __forceinline__ void copy_groups(const SequenceRows& rows, Tile& tile, const int32_t (&pages)[groups],
                                              int count) const {
    constexpr int wide = vector_elements<From>, vectors = Tile::columns / wide, at_once = 32 / vectors;
    static_assert(32 % vectors == 0 && group_rows % at_once == 0);
    const int lane = static_cast<int>(threadIdx.x % 32), row = lane / vectors, column = lane % vectors * wide;
    const int left = head_dim - column;
    const int valid = (left < 0 ? 0 : left < wide ? left : wide) * static_cast<int>(sizeof(From));
    const int mask = (1 << page_shift) - 1;
    const int64_t step = at_once * rows.token;
    LATHE_UNROLL
    for (int g = 0; g < groups; ++g) {
      const From* from = static_cast<const From*>(rows.data) + pages[g] * rows.page +
                         ((g * group_rows & mask) + row) * rows.token + (valid > 0 ? column : 0);
      LATHE_UNROLL
      for (int r = 0; r < group_rows; r += at_once, from += step)
        cp_async_16(raw_row<From>(tile, g * group_rows + r + row) + column, from,
                    g * group_rows + r + row < count ? valid : 0);
    }
  }

  template <class Tile, int groups>
  __device__ __forceinline__ void copy_scales(const SequenceRows& rows, Tile& tile, const int32_t (&pages)[groups],
                                              int count) const {
    static_assert(groups == 4);
    const int lane = static_cast<int>(threadIdx.x), g = lane / 4, row = lane * 4;
    if (lane >= Tile::rows / 4) return;
    const int32_t page = g == 0 ? pages[0] : g == 1 ? pages[1] : g == 2 ? pages[2] : pages[3];
    cp_async_16(scales_of(tile, lane), rows.scales + page * scale_page + (row & ((1 << page_shift) - 1)),
                row < count ? 16 : 0);
  }

  // Of `From`, where the tile's row begins.
  template <class From, class Tile>
  static __device__ __forceinline__ From* raw_row(Tile& tile, int row) {
    return reinterpret_cast<From*>(tile.elements + Tile::offset(row, 0));
  }
  // Four, after the columns of a row: of rows 4 · row to 4 · row + 3.
  template <class Tile>
  static __device__ __forceinline__ float* scales_of(Tile& tile, int row) {
    static_assert(Tile::Layout::padding_bytes == 16);
    return reinterpret_cast<float*>(tile.elements + Tile::offset(row, 0) + Tile::columns);
  }

  // Rows in place: a pass has whole rows in registers before it writes them.
  template <class From, class Tile>
  __device__ __forceinline__ void widen_rows(Tile& tile, int count) const {
    constexpr int wide = vector_elements<From>, vectors = Tile::columns / wide, at_once = 32 / vectors;
    constexpr int together = 2;  // passes
    static_assert(Tile::rows % (together * at_once) == 0 &&
                  convert_passes<Tile, From> <= 2 * static_cast<int>(sizeof(T) / sizeof(From)));
    const int lane = static_cast<int>(threadIdx.x), column = lane % vectors * wide;
    for (int first = 0; first < Tile::rows; first += together * at_once) {
      union {
        uint4 bits;
        From elements[wide];
      } in[together];
      float factors[together];
      LATHE_UNROLL
      for (int i = 0; i < together; ++i) {
        const int row = first + i * at_once + lane / vectors;
        in[i].bits = load_vector<uint4>(raw_row<From>(tile, row) + column);
        factors[i] = 1.0f;
        if (sizeof(From) == 1 && row < count) factors[i] = scales_of(tile, row / 4)[row % 4];
      }
      __syncwarp();  // the rows are in registers
      LATHE_UNROLL
      for (int i = 0; i < together; ++i) {
        union {
          uint4 bits[wide * sizeof(T) / 16];
          T elements[wide];
        } out;
        LATHE_UNROLL
        for (int j = 0; j < wide; ++j) out.elements[j] = from_float<T>(widen(in[i].elements[j]) * factors[i]);
        T* const to = tile.elements + Tile::offset(first + i * at_once + lane / vectors, column);
        LATHE_UNROLL
        for (int j = 0; j < static_cast<int>(sizeof out.bits / 16); ++j)
          store_vector<uint4>(to + j * vector_elements<T>, out.bits[j]);
      }
    }
    __syncwarp();  // they are T's
  }

  // ---- any number of warps, any pages ----

  template <int threads, class Tile>
  __device__ __forceinline__ void load(const SequenceRows& rows, Tile& tile, int first, int count) const {
    if (dtype == page_dtype_of<T>) {
      load_rows<threads>(tile, count, head_dim, aligned,
                         [&](int j) { return static_cast<const T*>(rows.data) + offset(rows, first + j); });
    } else if (dtype == DType::i8) {
      convert<threads, int8_t>(rows, tile, first, count);
    } else if constexpr (sizeof(T) == 4) {
      dtype == DType::bf16 ? convert<threads, bf16_t>(rows, tile, first, count)
                           : convert<threads, f16_t>(rows, tile, first, count);
    } else {
      convert<threads, typename OtherHalf<T>::type>(rows, tile, first, count);
    }
  }

  __device__ __forceinline__ int64_t offset(const SequenceRows& rows, int position) const {
    return table[position >> page_shift] * rows.page + (position & ((1 << page_shift) - 1)) * rows.token;
  }
  __device__ __forceinline__ float scale(const SequenceRows& rows, int position) const {
    return rows.scales[table[position >> page_shift] * scale_page + (position & ((1 << page_shift) - 1))];
  }

  // 16 bytes of From at a time.
  template <int threads, class From, class Tile>
  __device__ __forceinline__ void convert(const SequenceRows& rows, Tile& tile, int first, int count) const {
    constexpr int wide = vector_elements<From>, vectors = Tile::columns / wide;
    static_assert(convert_passes<Tile, From> <= 2 * static_cast<int>(sizeof(T) / sizeof(From)));
    union In {
      uint4 bits;
      From elements[wide];
    };
    union Out {
      uint2 bits[wide * sizeof(T) / 8];
      T elements[wide];
    };
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < Tile::rows * vectors; i += threads) {
      const int row = i / vectors, column = i % vectors * wide;
      const int left = row < count ? head_dim - column : 0;
      In in;
      in.bits = uint4{};
      float factor = 1.0f;
      if (left > 0) {
        const From* source = static_cast<const From*>(rows.data) + offset(rows, first + row) + column;
        if (aligned && left >= wide) {
          in.bits = load_vector<uint4>(source);
        } else {
          LATHE_UNROLL
          for (int j = 0; j < wide; ++j)
            if (j < left) in.elements[j] = source[j];
        }
        if constexpr (sizeof(From) == 1) factor = scale(rows, first + row);
      }
      Out out;
      LATHE_UNROLL
      for (int j = 0; j < wide; ++j) out.elements[j] = from_float<T>(widen(in.elements[j]) * factor);
      LATHE_UNROLL
      for (int j = 0; j < static_cast<int>(sizeof out.bits / 8); ++j)
        store_vector<uint2>(tile.elements + Tile::offset(row, column) + j * (8 / static_cast<int>(sizeof(T))),
                            out.bits[j]);
    }
  }
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
