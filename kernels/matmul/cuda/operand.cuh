// Dense operands on their way into the stages of a product (mainloop.cuh).
#pragma once

#include "kernels/matmul/cuda/mainloop.cuh"
#include "kernels/matmul/cuda/product.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// An operand in memory, `stride` elements from line to line of its fastest index. `aligned`: lines start at multiples
// of 16 bytes.
template <class T>
struct DenseOperand {
  const T* data;
  int64_t stride;
  bool aligned;
};

template <class T>
inline DenseOperand<T> dense_operand(const ProductMatrix& matrix) {
  const T* data = static_cast<const T*>(matrix.data);
  return {data, matrix.stride, rows_aligned(data, matrix.stride)};
}

// What a thread copies of each tile of a dense operand along k: one vector of every `rows_at_once`-th row of the tile,
// always in the same columns. Everything that does not change from tile to tile is worked out once: in the loop an
// address is an addition. `listed`: the operand's rows are those of a list, and an address is a product, too.
template <class Tile, Major major, int threads, bool listed = false>
class OperandReader {
  using T = typename Tile::T;

 public:
  // Tiles of operand rows [first, first + extent of the tile), of `count` that there are, from k = 0 on.
  __device__ __forceinline__ void start(const DenseOperand<T>& operand, int64_t first, int64_t count, int64_t k) {
    const int row = static_cast<int>(threadIdx.x) / Tile::vectors,
              column = static_cast<int>(threadIdx.x) % Tile::vectors * width;
    constexpr int extent = k_major ? Tile::rows : Tile::columns;
    const int64_t left = count - first, k_left = k < far ? k : far;
    const int here = left < extent ? static_cast<int>(left) : extent;
    aligned_ = operand.aligned;
    pass_stride_ = operand.stride * rows_at_once;
    if constexpr (k_major) {
      next_ = operand.data + (first + row) * operand.stride + column;
      step_stride_ = block_k;
      rows_left_ = here - row;
      columns_left_ = static_cast<int>(k_left) - column;
    } else {
      next_ = operand.data + row * operand.stride + first + column;
      step_stride_ = block_k * operand.stride;
      rows_left_ = static_cast<int>(k_left) - row;
      columns_left_ = here - column;
    }
    LATHE_UNROLL
    for (int i = 0; i < places; ++i) place_[i] = Tile::offset(row + i * rows_at_once, column);
  }
  // Of the operand's rows that `picked` names, `count` of them, from k = 0 on: a thread has one row of the tile.
  __device__ __forceinline__ void start_picked(const DenseOperand<T>& operand, const int32_t* picked, int count,
                                               int64_t k) {
    static_assert(k_major && passes == 1 && !listed);
    start(operand, 0, count, k);
    const int row = static_cast<int>(threadIdx.x) / Tile::vectors;
    if (row < count) next_ += (picked[row] - row) * operand.stride;
  }

  // The same of as many as the tile has.
  __device__ __forceinline__ void start_listed(const DenseOperand<T>& operand, const int32_t* list, int count,
                                               int64_t k) {
    static_assert(k_major && listed);
    start(operand, 0, count, k);
    const int row = static_cast<int>(threadIdx.x) / Tile::vectors;
    next_ -= row * operand.stride;
    pass_stride_ = operand.stride;
    LATHE_UNROLL
    for (int i = 0; i < passes; ++i) list_[i] = row + i * rows_at_once < count ? list[row + i * rows_at_once] : 0;
  }

  // The next tile, by cp.async; without alignment element by element.
  __device__ __forceinline__ void read(Tile& tile) {
    read_from(next_, tile);
    advance();
  }
  // And beside it that of an operand of the same extents, whose elements lie `apart` after this one's.
  __device__ __forceinline__ void read(Tile& tile, Tile& other, int64_t apart) {
    read_from(next_, tile);
    read_from(next_ + apart, other);
    advance();
  }

 private:
  static constexpr bool k_major = major == Major::k;
  static constexpr int width = vector_elements<T>;
  static constexpr int64_t far = int64_t{1} << 30;
  static constexpr int rows_at_once = threads / Tile::vectors;
  static constexpr int passes = Tile::rows / rows_at_once;
  static_assert(threads % Tile::vectors == 0 && Tile::rows % rows_at_once == 0);
  // The swizzle repeats every eight rows: a single warp, which reads four at once, finds its columns in two places.
  static constexpr int places = rows_at_once % 8 == 0 ? 1 : 2;
  static_assert(rows_at_once % 8 == 0 || rows_at_once == 4);
  static_assert(row_order_passes<Tile> == 1, "the copies of a warp meet no bank twice");

  __device__ __forceinline__ void read_from(const T* first, Tile& tile) const {
    if (!aligned_) {
      read_elements(first, tile);
    } else if (columns_left_ >= width && rows_left_ > (passes - 1) * rows_at_once) {
      read_vectors<true>(first, tile);
    } else {
      read_vectors<false>(first, tile);
    }
  }
  __device__ __forceinline__ void advance() {
    next_ += step_stride_;
    (k_major ? columns_left_ : rows_left_) -= block_k;
  }

  // A length that is not constant costs five instructions for each copy; nearly all tiles are whole.
  template <bool whole>
  __device__ __forceinline__ void read_vectors(const T* first, Tile& tile) const {
    const int count = columns_left_ < 0 ? 0 : columns_left_ > width ? width : columns_left_;
    const T* from = first;
    LATHE_UNROLL
    for (int i = 0; i < passes; ++i) {
      if constexpr (listed) from = first + list_[i] * pass_stride_;
      const int valid_bytes = whole ? 16 : i * rows_at_once < rows_left_ ? count * 2 : 0;
      cp_async_16(target(tile, i), from, valid_bytes);
      if constexpr (!listed) from += pass_stride_;
    }
  }

  __device__ __forceinline__ void read_elements(const T* first, Tile& tile) const {
    if constexpr (listed) {  // an index that is not known at compile time would take the list out of registers
      LATHE_UNROLL
      for (int i = 0; i < passes; ++i) read_elements_of(i, first + list_[i] * pass_stride_, tile);
    } else {
      const T* from = first;
#pragma unroll 1
      for (int i = 0; i < passes; ++i, from += pass_stride_) read_elements_of(i, from, tile);
    }
  }
  __device__ __forceinline__ void read_elements_of(int i, const T* from, Tile& tile) const {
    const int count = i * rows_at_once < rows_left_ ? columns_left_ : 0;
    GroupBits<T> bits;
    LATHE_UNROLL
    for (int j = 0; j < width; ++j) bits.elements[j] = j < count ? from[j] : from_float<T>(0.0f);
    store_vector<uint4>(tile.elements + Tile::offset(static_cast<int>(threadIdx.x) / Tile::vectors + i * rows_at_once,
                                                     static_cast<int>(threadIdx.x) % Tile::vectors * width),
                        bits.vectors[0]);
  }

  // Where this thread's vector of pass i goes; i is known at compile time.
  __device__ __forceinline__ T* target(Tile& tile, int i) const {
    return tile.elements + place_[i % places] + i / places * (places * rows_at_once) * Tile::pitch;
  }

  const T* next_;
  int64_t pass_stride_, step_stride_;  // listed: pass_stride_ is from row to row
  int rows_left_, columns_left_;       // from this thread's first row and column on
  int place_[places];
  int list_[listed ? passes : 1];  // the rows that are listed
  bool aligned_;
};

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
