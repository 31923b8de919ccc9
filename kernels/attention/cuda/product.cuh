// Rows of attention in shared memory, and the two products made of them: on the tensor cores for bf16 and f16, in chains of
// fma for f32.
//
// Accumulators lie as mma.sync leaves them, whatever the dtype: of a warp's 16-row slab i and 8-column tile j, lane 4g + t holds
// c[i][j][0] and [1] at row g, columns 2t and 2t + 1, and c[i][j][2] and [3] at row g + 8.
//
// An element's bits depend on its row and column alone: f32 in ascending order, 16 bits in steps of 16 along the sum. How many
// rows and columns a warp computes beside it changes nothing.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row.h"

// For loops that index no registers: all of them unrolled make kernels that miss the instruction cache and build for minutes.
#if LATHE_SIMT
#define LATHE_UNROLL_LITTLE
#define LATHE_NOT_UNROLLED
#else
#define LATHE_UNROLL_LITTLE _Pragma("unroll 2")
#define LATHE_NOT_UNROLLED _Pragma("unroll 1")
#endif

namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash {

template <class T>
inline constexpr int piece = 16 / static_cast<int>(sizeof(T));  // elements in 16 bytes

// Elements from one row of D to the next: an odd number of 16-byte pieces, so that the like piece of eight neighbouring rows
// lies in eight different bank groups. (Swapped places need no room, but a power of two of pieces, which D = 96 has not.)
template <class T, int D>
inline constexpr int pitch = D + piece<T>;

template <class T>
union Piece {
  uint4 bits;
  T elements[piece<T>];
};

// All threads of the block copy `rows` rows of D elements: of the first `count` ≥ 1 the first head_dim elements, found through
// address(row) → const T*; the rest are zeros. Through cp.async where rows are `aligned` to 16 bytes: the caller commits.
template <class T, int D, int rows, int threads, class Address>
__device__ __forceinline__ void load_rows(T* matrix, int count, int head_dim, bool aligned, Address address) {
  constexpr int pieces = D / piece<T>;
  const auto each_piece = [&](auto copy) {
    LATHE_NOT_UNROLLED  // two at a time: the addresses of the keys spilled at D = 128, where 192 registers hold sums meanwhile
        for (int i = static_cast<int>(threadIdx.x); i < rows * pieces; i += threads) {
      const int row = i / pieces, column = i % pieces * piece<T>;
      const int left = row < count ? head_dim - column : 0;
      const int valid = left < 0 ? 0 : left < piece<T> ? left : piece<T>;
      copy(matrix + row * pitch<T, D> + column, address(row < count ? row : 0) + (valid > 0 ? column : 0), valid);
    }
  };
  if (aligned) {
    each_piece([](T* target, const T* source, int valid) {
      cp_async_16(target, source, valid * static_cast<int>(sizeof(T)));
    });
  } else {
    each_piece([](T* target, const T* source, int valid) {
      LATHE_NOT_UNROLLED
      for (int j = 0; j < piece<T>; ++j) target[j] = j < valid ? source[j] : from_float<T>(0.0f);
    });
  }
}

// Calls body(i, j, e, c[i][j][e]) for every accumulator.
template <int slabs, int tiles, class Body>
__device__ __forceinline__ void for_each(float (&c)[slabs][tiles][4], Body body) {
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < tiles; ++j) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) body(i, j, e, c[i][j][e]);
    }
  }
}

__device__ __forceinline__ void multiply_tile(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16_t) {
  mma_m16n8k16_bf16(c, a, b);
}
__device__ __forceinline__ void multiply_tile(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16_t) {
  mma_m16n8k16_f16(c, a, b);
}

// c += left · rightᵀ, summed over head_dim (rounded up: zeros lie after it): left is the warp's 16 · slabs rows, right 8 · tiles rows.
template <class T, int D, int slabs, int tiles>
__device__ __forceinline__ void multiply_rows(float (&c)[slabs][tiles][4], const T* left, const T* right,
                                              int head_dim) {
  constexpr int step = pitch<T, D>;
  const int lane = threadIdx.x % 32;
  if constexpr (sizeof(T) == 2) {
    left += lane % 16 * step + lane / 16 * 8;  // rows 0–7 and 8–15 of the first eight elements, then of the second
    right +=
        (lane / 16 * 8 + lane % 8) * step + lane / 8 % 2 * 8;  // elements 0–7 and 8–15 of one tile, then of the next
    LATHE_UNROLL_LITTLE
    for (int d = 0; d < head_dim; d += 16) {
      uint32_t a[slabs][4];
      LATHE_UNROLL
      for (int i = 0; i < slabs; ++i) ldmatrix_x4(a[i], left + i * 16 * step + d);
      LATHE_UNROLL
      for (int j = 0; j < tiles; j += 2) {
        uint32_t both[4];
        ldmatrix_x4(both, right + j * 8 * step + d);
        const uint32_t b[2][2] = {{both[0], both[1]}, {both[2], both[3]}};
        LATHE_UNROLL
        for (int i = 0; i < slabs; ++i) {
          multiply_tile(c[i][j], a[i], b[0], T{});
          multiply_tile(c[i][j + 1], a[i], b[1], T{});
        }
      }
    }
  } else {
    left += lane / 4 * step;
    right += lane % 4 * 2 * step;
    for (int d = 0; d < head_dim; d += 4) {
      float4 a[slabs][2];
      LATHE_UNROLL
      for (int i = 0; i < slabs; ++i) {
        a[i][0] = load_vector<float4>(left + i * 16 * step + d);
        a[i][1] = load_vector<float4>(left + (i * 16 + 8) * step + d);
      }
      LATHE_UNROLL
      for (int j = 0; j < tiles; ++j) {
        const float4 b[2] = {load_vector<float4>(right + j * 8 * step + d),
                             load_vector<float4>(right + (j * 8 + 1) * step + d)};
        LATHE_UNROLL
        for (int i = 0; i < slabs; ++i) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            const float4 x = a[i][e / 2], y = b[e % 2];
            c[i][j][e] = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, c[i][j][e]))));
          }
        }
      }
    }
  }
}

__device__ __forceinline__ uint32_t pack(float low, float high, bf16_t) {
  const auto pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof bits);
  return bits;
}
__device__ __forceinline__ uint32_t pack(float low, float high, f16_t) {
  const auto pair = __floats2half2_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// Accumulators of a warp, 16 · slabs × 8 · tiles, as the left operand of a product summed over their columns: rounded to T. The
// fragments of 16 bits are the accumulators' own places; f32 goes through `room` in shared memory, the warp's own.
template <class T, int slabs, int tiles>
struct Weights {
  static constexpr int room = 0;  // in floats
  uint32_t a[slabs][tiles / 2][4];
  __device__ __forceinline__ Weights(const float (&c)[slabs][tiles][4], float*) {
    LATHE_UNROLL
    for (int i = 0; i < slabs; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < tiles; ++j) {
        a[i][j / 2][j % 2 * 2] = pack(c[i][j][0], c[i][j][1], T{});
        a[i][j / 2][j % 2 * 2 + 1] = pack(c[i][j][2], c[i][j][3], T{});
      }
    }
  }
};
template <int slabs, int tiles>
struct Weights<float, slabs, tiles> {
  static constexpr int step = 8 * tiles + 4;  // rows in different banks
  static constexpr int room = 16 * slabs * step;
  const float* rows;
  __device__ __forceinline__ Weights(const float (&c)[slabs][tiles][4], float* own) : rows(own) {
    const int lane = threadIdx.x % 32;
    __syncwarp();  // the warp is done with what was there
    LATHE_UNROLL
    for (int i = 0; i < slabs; ++i) {
      LATHE_UNROLL
      for (int j = 0; j < tiles; ++j) {
        LATHE_UNROLL
        for (int e = 0; e < 4; ++e)
          own[(i * 16 + lane / 4 + e / 2 * 8) * step + j * 8 + lane % 4 * 2 + e % 2] = c[i][j][e];
      }
    }
    __syncwarp();  // and all of it is there
  }
};

// out[·][first], out[·][first + 1] += weights · right[·][8 · first … 8 · first + 16), summed over right's 8 · tiles rows.
template <class T, int D, int slabs, int tiles, int columns>
__device__ __forceinline__ void multiply_columns(float (&out)[slabs][columns][4], int first,
                                                 const Weights<T, slabs, tiles>& weights, const T* right) {
  constexpr int step = pitch<T, D>;
  const int lane = threadIdx.x % 32;
  if constexpr (sizeof(T) == 2) {
    right += lane % 16 * step + lane / 16 * 8;  // rows 0–7 and 8–15 of eight columns, then of the next eight
    LATHE_UNROLL
    for (int k = 0; k < tiles / 2; ++k) {
      uint32_t both[4];
      ldmatrix_x4_transposed(both, right + k * 16 * step);
      const uint32_t b[2][2] = {{both[0], both[1]}, {both[2], both[3]}};
      LATHE_UNROLL
      for (int i = 0; i < slabs; ++i) {
        multiply_tile(out[i][first], weights.a[i][k], b[0], T{});
        multiply_tile(out[i][first + 1], weights.a[i][k], b[1], T{});
      }
    }
  } else {
    right += lane % 4 * 2;
    const float* left = weights.rows + lane / 4 * weights.step;
    LATHE_UNROLL_LITTLE
    for (int k = 0; k < 8 * tiles; ++k) {
      const float2 b[2] = {load_vector<float2>(right + k * step), load_vector<float2>(right + k * step + 8)};
      LATHE_UNROLL
      for (int i = 0; i < slabs; ++i) {
        const float a[2] = {left[i * 16 * weights.step + k], left[(i * 16 + 8) * weights.step + k]};
        LATHE_UNROLL
        for (int j = 0; j < 2; ++j) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e)
            out[i][first + j][e] = fmaf(a[e / 2], e % 2 ? b[j].y : b[j].x, out[i][first + j][e]);
        }
      }
    }
  }
}

// A warp's accumulators through its 16 · slabs rows `room` of shared memory, which nobody else uses, to the first `count` rows
// of global memory found through address(row) → T*: whole pieces where they are aligned.
template <class T, int D, int slabs, class Address>
__device__ __forceinline__ void store_rows(const float (&c)[slabs][D / 8][4], T* room, int count, int head_dim,
                                           bool aligned, Address address) {
  constexpr int step = pitch<T, D>, pieces = D / piece<T>;
  const int lane = threadIdx.x % 32;
  __syncwarp();
  LATHE_UNROLL
  for (int i = 0; i < slabs; ++i) {
    LATHE_UNROLL
    for (int j = 0; j < D / 8; ++j) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e)
        room[(i * 16 + lane / 4 + e / 2 * 8) * step + j * 8 + lane % 4 * 2 + e % 2] = from_float<T>(c[i][j][e]);
    }
  }
  __syncwarp();
  for (int i = lane; i < count * pieces; i += 32) {
    const int row = i / pieces, column = i % pieces * piece<T>;
    const int left = head_dim - column;
    if (left <= 0) continue;
    T* target = address(row) + column;
    const T* source = room + row * step + column;
    if (aligned && left >= piece<T>) {
      store_vector<uint4>(target, load_vector<uint4>(source));
    } else {
      for (int j = 0; j < (left < piece<T> ? left : piece<T>); ++j) target[j] = source[j];
    }
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE::flash
