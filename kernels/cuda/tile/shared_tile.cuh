// Tiles in shared memory. How a tile lies is part of its type, so that whoever reads or writes it (fragment.cuh,
// rows.cuh, epilogue.cuh) finds its elements, and asserts when compiling that no access of a warp meets bank conflicts.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/cuda/tile/banks.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// In 16 bytes: what cp.async moves, and a row of ldmatrix's 8 × 8 matrices.
template <class T>
inline constexpr int vector_elements = 16 / static_cast<int>(sizeof(T));

// Which index of an operand has neighbours in memory: k, which is summed over, or the other (m of the left operand, n
// of the right one).
enum class Major { k, mn };

// Swizzled: the 16-byte vectors of a row change places within 128 bytes (less where a row has less) by an exclusive or
// with a number that counts passes of 128 bytes over the banks: nothing is padded. With rows of 128, 64 or 32 bytes
// this is the hardware's swizzle of that width.
struct Swizzled {
  static constexpr bool swizzled = true;
  static constexpr int padding_bytes = 0;
};
// Padded: so many bytes stay free after each row.
template <int bytes>
struct Padded {
  static constexpr bool swizzled = false;
  static constexpr int padding_bytes = bytes;
};

// rows × columns of T, rows one after another.
template <class T_, int rows_, int columns_, class Layout_>
struct SharedTile {
  using T = T_;
  using Layout = Layout_;
  static constexpr int rows = rows_, columns = columns_;
  static constexpr int pitch = columns + Layout::padding_bytes / static_cast<int>(sizeof(T));  // from row to row
  static constexpr int vectors = columns / vector_elements<T>;                                 // of a row
  static constexpr int swizzle = vectors < 8 ? vectors : 8;  // vectors within which places change
  static constexpr int rows_of_pass = 8 / swizzle;
  static_assert(columns % vector_elements<T> == 0 && Layout::padding_bytes % 16 == 0);
  static_assert(!Layout::swizzled || (vectors % swizzle == 0 && 8 % swizzle == 0));

  alignas(16) T elements[rows * pitch];

  static __host__ __device__ constexpr int offset(int row, int column) {
    if constexpr (Layout::swizzled) {
      return row * pitch + (column ^ (row / rows_of_pass % swizzle * vector_elements<T>));
    } else {
      return row * pitch + column;
    }
  }
};

template <class T, int rows, int columns>
using SwizzledTile = SharedTile<T, rows, columns, Swizzled>;

// An odd number of vectors from row to row: the like vector of eight neighbouring rows lies in eight different bank
// groups, and every place is an addition of constants. It costs a vector a row.
template <class T, int rows, int columns>
using PaddedTile = SharedTile<T, rows, columns, Padded<16>>;

// A lane's place in a tile, worked out once: what differs from access to access are rows (a multiple of eight, which
// keeps the swizzle) and columns whose bits the lane's own column lacks.
template <class Tile>
class TilePlace {
 public:
  __host__ __device__ constexpr TilePlace(int row, int column)
      : row_(Tile::Layout::swizzled ? row * Tile::pitch : Tile::offset(row, column)),
        column_(Tile::Layout::swizzled ? Tile::offset(row, column) - row_ : 0) {}
  __host__ __device__ constexpr int at(int rows, int columns) const {
    if constexpr (Tile::Layout::swizzled) {
      return row_ + rows * Tile::pitch + (column_ ^ columns);
    } else {
      return row_ + rows * Tile::pitch + columns;
    }
  }

 private:
  int row_, column_;  // offsets in elements; a padded tile needs their sum only
};

// How often a bank is asked at most while the lanes of a warp access neighbouring vectors in the order of rows, as
// every copy does.
template <class Tile>
constexpr int count_row_order_passes() {
  constexpr int bytes = static_cast<int>(sizeof(typename Tile::T));
  int most = 0;
  for (int first = 0; first < 32 * Tile::vectors && first + 32 <= Tile::rows * Tile::vectors; first += 32) {
    const int passes = bank_passes(16, [first](int lane) {
      const int vector = first + lane;
      return Tile::offset(vector / Tile::vectors, vector % Tile::vectors * (16 / bytes)) * bytes;
    });
    if (passes > most) most = passes;
  }
  return most;
}
template <class Tile>
inline constexpr int row_order_passes = count_row_order_passes<Tile>();

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
