#include "kernels/matmul/weights/packed/bodies.h"

#include "kernels/matmul/cpu/transpose_rows.h"

namespace lathe::kernels {

using gemm::panel_width;

// Words of a panel that belong to other rows may be written by another thread at this moment: rows that do not fill a
// vector are stored word by word.
template <class Source>
LATHE_INLINE void pack_source(const PackRowsArgs& args, const Source& source) {
  const int64_t steps = gemm::k_steps(args.columns, args.dtype);
  for (int64_t i = 0; i < args.count;) {
    const int64_t row = args.first + i;
    uint32_t* out = args.panels + row / panel_width * steps * panel_width + row % panel_width;
    if (row % lanes == 0 && i + lanes <= args.count) {
      transpose_rows(source, i, lanes, 0, steps, out, panel_width);
      i += lanes;
    } else {
      for (int64_t step = 0; step < steps; ++step) out[step * panel_width] = source.word(i, step);
      i += 1;
    }
  }
}

template <Isa>
void pack_rows(const PackRowsArgs& args) {
  if (args.dtype == DType::f32) return pack_source(args, F32Rows{args.rows, args.columns, args.columns});
  if (args.exact) return pack_source(args, HalvedRows{args.rows, args.columns, args.columns});
  pack_source(args, RoundedRows{args.rows, args.columns, args.columns});
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
