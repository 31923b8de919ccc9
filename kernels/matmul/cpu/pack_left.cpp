// The left operand packed into tiles, in the order in which the kernels read it.
#include "kernels/matmul/cpu/bodies.h"
#include "kernels/matmul/cpu/transpose_rows.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// The left operand is transposed in memory: a k step's words are neighbours already.
void pack_transposed_tile(const PackLeftArgs& args, int64_t row, int rows, int64_t first_step, int64_t last_step,
                          uint32_t* out) {
  constexpr bool widen = gemm::left_words(Isa::LATHE_ISA, DType::bf16) == 2;
  const int64_t stride = args.left.stride;
  for (int64_t step = first_step; step < last_step; ++step) {
    if (args.left.dtype == DType::f32) {
      store_words(out, load_words(static_cast<const float*>(args.left.data) + step * stride + row, rows));
      out += rows;
      continue;
    }
    const uint16_t* p = static_cast<const uint16_t*>(args.left.data) + 2 * step * stride + row;
    const VecH first = load_halves(p, rows);
    const VecH second = 2 * step + 1 < args.k ? load_halves(p + stride, rows) : VecH{};
    if (widen) {
      store(reinterpret_cast<float*>(out), from_bf16_bits(first));
      store(reinterpret_cast<float*>(out) + rows, from_bf16_bits(second));
      out += 2 * rows;
    } else {
      store_words(out, make_pairs(first, second));
      out += rows;
    }
  }
}

// A few k steps of all tiles at a time, because the k steps of one tile are 14 words each, a whole row of memory apart:
// read tile by tile, each cache line comes from beyond the second-level cache once for every tile that shares it.
void pack_transposed(const PackLeftArgs& args) {
  constexpr int64_t steps_at_once = 8;
  const int64_t words = gemm::left_words(Isa::LATHE_ISA, args.left.dtype);
  for (int64_t step = args.first_step; step < args.last_step; step += steps_at_once) {
    const int64_t last = step + steps_at_once < args.last_step ? step + steps_at_once : args.last_step;
    for (int64_t tile = args.first_tile; tile < args.last_tile; ++tile) {
      const int64_t row = args.tiling.first_row(tile), rows = args.tiling.first_row(tile + 1) - row;
      uint32_t* out = args.packed + tile * args.tile_stride + (step - args.first_step) * rows * words;
      pack_transposed_tile(args, args.row_offset + row, static_cast<int>(rows), step, last, out);
    }
  }
}

#if defined(LATHE_ISA_avx512_bf16)
// 16 words of a row, four k steps of each of four chains, transposed as a matrix of 4 × 4. A quantised weight has whole
// ones.
void pack_by_chain(const PackLeftArgs& args) {
  const Bf16Rows row = {static_cast<const uint16_t*>(args.left.data), args.left.stride, args.k};
  const int64_t rows = args.tiling.rows;
  uint32_t* out = args.packed;
  for (int64_t step = args.first_step; step < args.last_step; step += lanes)
    for (int64_t i = 0; i < rows; ++i, out += lanes) {
      const VecU v = row.vector(args.row_offset + i, step);
      store_words(out, __builtin_shufflevector(v, v, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    }
}
#endif

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void pack_left(const PackLeftArgs& args) {
#if defined(LATHE_ISA_avx512_bf16)
  if (args.by_chain) return pack_by_chain(args);
#endif
  if (args.transposed) return pack_transposed(args);
  for (int64_t tile = args.first_tile; tile < args.last_tile; ++tile) {
    const int64_t tile_row = args.tiling.first_row(tile);
    const int rows = static_cast<int>(args.tiling.first_row(tile + 1) - tile_row);
    const int64_t row = args.row_offset + tile_row;
    uint32_t* out = args.packed + tile * args.tile_stride;
    if (args.left.dtype == DType::f32) {
      transpose_rows(F32Rows{static_cast<const float*>(args.left.data), args.left.stride, args.k}, row, rows,
                     args.first_step, args.last_step, out, rows);
    } else if (gemm::left_words(Isa::LATHE_ISA, DType::bf16) == 1) {
      transpose_rows(Bf16Rows{static_cast<const uint16_t*>(args.left.data), args.left.stride, args.k}, row, rows,
                     args.first_step, args.last_step, out, rows);
    } else {
      transpose_rows(WidenedRows{static_cast<const bf16*>(args.left.data), args.left.stride, args.k}, row, rows,
                     2 * args.first_step, 2 * args.last_step, out, rows);
    }
  }
}
template void pack_left<Isa::LATHE_ISA>(const PackLeftArgs&);

}  // namespace lathe::kernels
