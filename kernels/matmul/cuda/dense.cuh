// Dense operands on their way into the tiles of a product (tile.cuh).
#pragma once

#include "kernels/matmul/cuda/product.h"
#include "kernels/matmul/cuda/tile.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// An operand in memory, `stride` elements from line to line of its fastest index. `aligned`: lines start at multiples of 16
// bytes.
template <class T>
struct DenseOperand {
  const T* data;
  int64_t stride;
  bool aligned;
};

template <class T>
inline DenseOperand<T> dense_operand(const MatrixCuda& matrix) {
  const T* data = static_cast<const T*>(matrix.data);
  return {data, matrix.stride, rows_aligned(data, matrix.stride)};
}

// What a thread copies of each tile of a dense operand: one piece of every `lines_at_once`-th line, always in the same columns of
// memory. Everything that does not change from tile to tile is worked out once: in the loop an address is an addition.
template <class Shape, class Tile, class T>
class DenseReader {
 public:
  // Tiles of rows [first_row, first_row + Tile::rows) from k = 0 on.
  __device__ __forceinline__ void start(const DenseOperand<T>& operand, int64_t first_row, int64_t rows, int64_t k) {
    const int piece = static_cast<int>(threadIdx.x) % Tile::line_pieces,
              line = static_cast<int>(threadIdx.x) / Tile::line_pieces;
    const int64_t rows_left = rows - first_row, k_left = k < far ? k : far;
    const int rows_here = rows_left < Tile::rows ? static_cast<int>(rows_left) : Tile::rows;
    aligned_ = operand.aligned;
    pass_stride_ = operand.stride * lines_at_once;
    if constexpr (along_k) {
      next_ = operand.data + (first_row + line) * operand.stride + piece * piece_elements;
      step_stride_ = tile_k;
      lines_left_ = rows_here - line;
      elements_left_ = static_cast<int>(k_left) - piece * piece_elements;
    } else {
      next_ = operand.data + line * operand.stride + first_row + piece * piece_elements;
      step_stride_ = tile_k * operand.stride;
      lines_left_ = static_cast<int>(k_left) - line;
      elements_left_ = rows_here - piece * piece_elements;
    }
    place_ = Tile::place(line, piece);
  }

  // The next tile, by cp.async; without alignment element by element.
  __device__ __forceinline__ void read(T* tile) {
    T* target = tile + place_;
    if (!aligned_) {
      read_elements(target);
    } else if (elements_left_ >= piece_elements && lines_left_ > (passes - 1) * lines_at_once) {
      read_pieces<true>(target);
    } else {
      read_pieces<false>(target);
    }
    next_ += step_stride_;
    (along_k ? elements_left_ : lines_left_) -= tile_k;
  }

 private:
  static constexpr bool along_k = Tile::fastest == Fastest::k;
  static constexpr int64_t far = int64_t{1} << 30;
  static constexpr int lines_at_once = Shape::threads / Tile::line_pieces;
  static constexpr int passes = Tile::lines / lines_at_once;
  static_assert(Shape::threads % Tile::line_pieces == 0 && Tile::lines % lines_at_once == 0);
  static_assert(lines_at_once % 8 == 0, "the swapped places repeat every eight lines");

  // A length that is not constant costs five instructions for each copy; nearly all tiles are whole.
  template <bool whole>
  __device__ __forceinline__ void read_pieces(T* target) const {
    const int count = elements_left_ < 0 ? 0 : elements_left_ > piece_elements ? piece_elements : elements_left_;
    const T* from = next_;
    LATHE_UNROLL
    for (int i = 0; i < passes; ++i, from += pass_stride_) {
      const int valid_bytes = whole ? 16 : i * lines_at_once < lines_left_ ? count * 2 : 0;
      cp_async_16(target + i * lines_at_once * Tile::line_elements, from, valid_bytes);
    }
  }

  __device__ __forceinline__ void read_elements(T* target) const {
    const T* from = next_;
#pragma unroll 1
    for (int i = 0; i < passes; ++i, from += pass_stride_) {
      const int count = i * lines_at_once < lines_left_ ? elements_left_ : 0;
      GroupBits<T> bits;
      LATHE_UNROLL
      for (int j = 0; j < piece_elements; ++j) bits.elements[j] = j < count ? from[j] : from_float<T>(0.0f);
      store_vector<uint4>(target + i * lines_at_once * Tile::line_elements, bits.vectors[0]);
    }
  }

  const T* next_;
  int64_t pass_stride_, step_stride_;
  int lines_left_, elements_left_;  // from this thread's first line and piece on
  int place_;
  bool aligned_;
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
