// The left operand packed into tiles of AMX (gemm::left_rows): squares of [16 rows][16 words], zeros where there is no
// row and no word.
#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/cpu/transpose_rows.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int64_t side = gemm::amx_side;

// A tile of the product: rows of the left operand, and where they go.
struct Tile {
  int64_t row, rows, packed_rows;
  uint32_t* out;
};

Tile tile_at(const PackLeftArgs& args, int64_t tile) {
  const int64_t first = args.tiling.first_row(tile), rows = args.tiling.first_row(tile + 1) - first;
  return {args.row_offset + first, rows, gemm::left_rows(Isa::amx, DType::bf16, rows),
          args.packed + tile * args.tile_stride};
}

void pack_rows(const PackLeftArgs& args, const Tile& tile) {
  const Bf16Rows source = {static_cast<const uint16_t*>(args.left.data), args.left.stride, args.k};
  for (int64_t i = 0; i < tile.packed_rows; ++i) {
    uint32_t* out = tile.out + i * side;
    for (int64_t step = args.first_step; step < args.last_step; step += side, out += tile.packed_rows * side)
      store_words(out, i < tile.rows ? words_at(source, tile.row + i, step, args.last_step) : VecU{});
  }
}

// 16 k steps of a tile whose rows are neighbours in memory.
void pack_square_of_columns(const PackLeftArgs& args, const Tile& tile, int64_t step) {
  const int64_t stride = args.left.stride;
  uint32_t* out = tile.out + (step - args.first_step) * tile.packed_rows;
  for (int64_t first = 0; first < tile.packed_rows; first += side) {
    const int count = static_cast<int>(tile.rows - first < side ? tile.rows - first : side);
    VecU v[lanes];
#pragma GCC unroll 16
    for (int64_t i = 0; i < side; ++i) {
      const int64_t k = 2 * (step + i);
      const uint16_t* p = static_cast<const uint16_t*>(args.left.data) + k * stride + tile.row + first;
      const bool counts = count > 0 && step + i < args.last_step;
      const VecH even = counts ? load_halves(p, count) : VecH{};
      const VecH odd = counts && k + 1 < args.k ? load_halves(p + stride, count) : VecH{};
      v[i] = make_pairs(even, odd);
    }
    transpose(v);
    const int64_t rows = tile.packed_rows < side ? tile.packed_rows : side;
    for (int64_t i = 0; i < rows; ++i) store_words(out + (first + i) * side, v[i]);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void pack_left(const PackLeftArgs& args) {
  if (!args.transposed) {
    for (int64_t tile = args.first_tile; tile < args.last_tile; ++tile) pack_rows(args, tile_at(args, tile));
    return;
  }
  // All tiles for the same k steps: tile by tile, each row of memory would come to the caches again for each.
  for (int64_t step = args.first_step; step < args.last_step; step += side)
    for (int64_t tile = args.first_tile; tile < args.last_tile; ++tile)
      pack_square_of_columns(args, tile_at(args, tile), step);
}
template void pack_left<Isa::LATHE_ISA>(const PackLeftArgs&);

}  // namespace lathe::kernels
