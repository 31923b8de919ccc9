#include "kernels/matmul/weights/packed/bodies.h"

#include "kernels/matmul/cpu/transpose_rows.h"

namespace lathe::kernels {

using gemm::panel_width;

// Words of a panel that belong to other rows may be written by another thread at this moment: rows that do not fill a
// vector are stored word by word.
template <Isa>
void pack_rows(const PackRowsArgs& args) {
  const int64_t steps = gemm::k_steps(args.columns, args.dtype);
  const F32Rows f32 = {args.rows, args.columns, args.columns};
  const RoundedRows rounded = {args.rows, args.columns, args.columns};
  const bool rounds = args.dtype == DType::bf16;
  for (int64_t i = 0; i < args.count;) {
    const int64_t row = args.first + i;
    uint32_t* out = args.panels + row / panel_width * steps * panel_width + row % panel_width;
    if (row % lanes == 0 && i + lanes <= args.count) {
      if (rounds) {
        transpose_rows(rounded, i, lanes, 0, steps, out, panel_width);
      } else {
        transpose_rows(f32, i, lanes, 0, steps, out, panel_width);
      }
      i += lanes;
    } else {
      for (int64_t step = 0; step < steps; ++step)
        out[step * panel_width] = rounds ? rounded.word(i, step) : f32.word(i, step);
      i += 1;
    }
  }
}
template void pack_rows<Isa::LATHE_ISA>(const PackRowsArgs&);

template <Isa>
void unpack_rows(const UnpackRowsArgs& args) {
  const int64_t steps = gemm::k_steps(args.columns, args.dtype);
  for (int64_t i = 0; i < args.count; ++i) {
    const int64_t row = args.first + i;
    const uint32_t* in = args.panels + row / panel_width * steps * panel_width + row % panel_width;
    float* out = args.rows + i * args.columns;
    for (int64_t step = 0; step < steps; ++step) {
      const uint32_t word = in[step * panel_width];
      if (args.dtype == DType::f32) {
        __builtin_memcpy(out + step, &word, 4);
        continue;
      }
      const uint32_t first = word << 16, second = word & 0xffff0000u;
      __builtin_memcpy(out + 2 * step, &first, 4);
      if (2 * step + 1 < args.columns) __builtin_memcpy(out + 2 * step + 1, &second, 4);
    }
  }
}
template void unpack_rows<Isa::LATHE_ISA>(const UnpackRowsArgs&);

}  // namespace lathe::kernels
