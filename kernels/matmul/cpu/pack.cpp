// Operands of a product put into the order in which the kernel reads them: squares of words turned over in registers.
#include "kernels/matmul/cpu/pack.h"

#include "kernels/matmul/cpu/quantized.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::Element;
using gemm::panel_width;
using gemm::Right;
using gemm::RightLayout;

// ---- one row of a row-major operand as units -----------------------------------------------------------------------

// A unit is the f32 itself.
struct F32Units {
  const float* data;
  int64_t stride, k;
  static constexpr int64_t k_per_unit = 1;
  static LATHE_INLINE VecU full(const F32Units& s, int64_t row, int64_t unit) {
    return load_words(s.data + row * s.stride + unit);
  }
  static LATHE_INLINE uint32_t one(const F32Units& s, int64_t row, int64_t unit) {
    uint32_t word;
    __builtin_memcpy(&word, s.data + row * s.stride + unit, 4);
    return word;
  }
};

// A unit is two neighbours of a bf16 row.
struct Bf16Units {
  const uint16_t* data;
  int64_t stride, k;
  static constexpr int64_t k_per_unit = 2;
  static LATHE_INLINE VecU full(const Bf16Units& s, int64_t row, int64_t unit) {
    return load_words(s.data + row * s.stride + 2 * unit);
  }
  static LATHE_INLINE uint32_t one(const Bf16Units& s, int64_t row, int64_t unit) {
    const uint16_t* p = s.data + row * s.stride + 2 * unit;
    return p[0] | (2 * unit + 1 < s.k ? static_cast<uint32_t>(p[1]) << 16 : 0u);
  }
};

// A unit is two neighbours of an f32 row, rounded.
struct RoundedUnits {
  const float* data;
  int64_t stride, k;
  static constexpr int64_t k_per_unit = 2;
  static LATHE_INLINE VecU full(const RoundedUnits& s, int64_t row, int64_t unit) {
    const float* p = s.data + row * s.stride + 2 * unit;
    return neighbours_to_pairs(load(p), load(p + lanes));
  }
  static LATHE_INLINE uint32_t one(const RoundedUnits& s, int64_t row, int64_t unit) {
    const float* p = s.data + row * s.stride + 2 * unit;
    return neighbours_to_pairs(load_partial(p, 2 * unit + 1 < s.k ? 2 : 1), zero())[0];
  }
};

// A unit is one bf16 widened to f32; past an odd k comes one zero, so that there are two for each unit of the panel.
struct WidenedUnits {
  const bf16* data;
  int64_t stride, k;
  static constexpr int64_t k_per_unit = 1;
  static LATHE_INLINE VecU full(const WidenedUnits& s, int64_t row, int64_t unit) {
    return (VecU)load(s.data + row * s.stride + unit);
  }
  static LATHE_INLINE uint32_t one(const WidenedUnits& s, int64_t row, int64_t unit) {
    return unit < s.k ? static_cast<uint32_t>((s.data + row * s.stride + unit)->bits) << 16 : 0u;
  }
};

// out[unit − first][i] = unit `unit` of row `row + i`, i < rows ≤ lanes. Rows of out are `width` words apart; whole vectors
// are stored, so that the words after the last row, up to `lanes`, are overwritten.
template <class Source>
LATHE_INLINE void turn_rows(const Source& source, int64_t row, int rows, int64_t first, int64_t last, uint32_t* out,
                            int64_t width) {
  const int64_t whole_units = source.k / Source::k_per_unit;  // units whose every half is there
  int64_t unit = first;
  const int64_t limit = whole_units < last ? whole_units : last;
  for (; unit + lanes <= limit; unit += lanes) {
    VecU v[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) v[i] = i < rows ? Source::full(source, row + i, unit) : VecU{};
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) store_words(out + (unit - first + i) * width, v[i]);
  }
  for (; unit < last; ++unit) {
    VecU v{};
    for (int i = 0; i < rows; ++i) v[i] = Source::one(source, row + i, unit);
    store_words(out + (unit - first) * width, v);
  }
}

// ---- right operands ------------------------------------------------------------------------------------------------

template <class Source>
void panel_of_rows(const Source& source, int64_t n, int64_t panel, int64_t first, int64_t last, uint32_t* slab) {
  for (int64_t lane = 0; lane < panel_width; lane += lanes) {
    const int64_t row = panel * panel_width + lane;
    const int64_t rows = n - row < 0 ? 0 : n - row < lanes ? n - row : lanes;
    turn_rows(source, row, static_cast<int>(rows), first, last, slab + lane, panel_width);
  }
}

LATHE_INLINE VecU load_words_partial(const void* p, int n) {
  return n == lanes ? load_words(p) : (VecU)load_partial(static_cast<const float*>(p), n);
}
LATHE_INLINE VecH load_halves_partial(const void* p, int n) {
  if (n < lanes) return load_partial_bits(p, n);
  VecH h;
  __builtin_memcpy(&h, p, sizeof h);
  return h;
}

void panel_of_plain(const Right& right, Element element, int64_t k, int64_t n, int64_t panel, int64_t first,
                    int64_t last, uint32_t* slab) {
  for (int64_t unit = first; unit < last; ++unit, slab += panel_width) {
    for (int64_t lane = 0; lane < panel_width; lane += lanes) {
      const int64_t column = panel * panel_width + lane;
      const int count = static_cast<int>(n - column < 0 ? 0 : n - column < lanes ? n - column : lanes);
      VecU words{};
      if (count == 0) {
      } else if (element == Element::f32) {
        words = load_words_partial(static_cast<const float*>(right.data) + unit * right.stride + column, count);
      } else {
        const uint16_t* row = static_cast<const uint16_t*>(right.data) + 2 * unit * right.stride + column;
        const VecH second = 2 * unit + 1 < k ? load_halves_partial(row + right.stride, count) : VecH{};
        words = make_pairs(load_halves_partial(row, count), second);
      }
      store_words(slab + lane, words);
    }
  }
}

// A square of a packed weight is one line from each of `lanes` places 128 bytes apart, few enough that the hardware's
// streams do not get going: the square two steps on is asked for while this one is turned over.
LATHE_INLINE void prefetch_square(const uint32_t* source) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) __builtin_prefetch(source + i * panel_width);
}

// The weight is [k, n] in panels [⌈k/32⌉][n units][32 rows of the weight]; its rows are the reduced index here.
void panel_of_panels_f32(const Right& right, int64_t k, int64_t n, int64_t panel, int64_t first, int64_t last,
                         uint32_t* slab) {
  const uint32_t* panels = static_cast<const uint32_t*>(right.data);
  for (int64_t row = first; row < last; row += lanes) {
    const uint32_t* source = panels + row / panel_width * right.stride * panel_width + row % panel_width;
    const int rows = static_cast<int>(last - row < lanes ? last - row : lanes);
    const int64_t ahead = row + 2 * lanes;
    const uint32_t* next = panels + ahead / panel_width * right.stride * panel_width + ahead % panel_width;
    for (int64_t lane = 0; lane < panel_width; lane += lanes) {
      const int64_t column = panel * panel_width + lane;
      if (ahead < k && column + lanes <= n) prefetch_square(next + column * panel_width);
      VecU v[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) v[i] = column + i < n ? load_words(source + (column + i) * panel_width) : VecU{};
      transpose(v);
      uint32_t* out = slab + (row - first) * panel_width + lane;
      if (rows == lanes) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) store_words(out + i * panel_width, v[i]);
      } else {
        for (int i = 0; i < rows; ++i) store_words(out + i * panel_width, v[i]);
      }
    }
  }
}

// The same for pairs: a word pairs two columns of one row, a word of the slab two rows of one column.
void panel_of_panels_bf16(const Right& right, int64_t k, int64_t n, int64_t panel, int64_t first, int64_t last,
                          uint32_t* slab) {
  const uint32_t* panels = static_cast<const uint32_t*>(right.data);
  const int64_t units = (n + 1) / 2;
  for (int64_t unit = first; unit < last; unit += lanes / 2) {
    const int64_t row = 2 * unit;
    const uint32_t* source = panels + row / panel_width * right.stride * panel_width + row % panel_width;
    const int64_t count = last - unit < lanes / 2 ? last - unit : lanes / 2;
    const int64_t ahead = row + 2 * lanes;
    const uint32_t* next = panels + ahead / panel_width * right.stride * panel_width + ahead % panel_width;
    for (int64_t lane = 0; lane < panel_width; lane += 2 * lanes) {
      const int64_t column_unit = (panel * panel_width + lane) / 2;
      if (ahead < k && column_unit + lanes <= units) prefetch_square(next + column_unit * panel_width);
      VecU v[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i)
        v[i] = column_unit + i < units ? load_words(source + (column_unit + i) * panel_width) : VecU{};
      transpose(v);
      uint32_t* out = slab + (unit - first) * panel_width + lane;
#pragma GCC unroll 8
      for (int i = 0; i < lanes / 2; ++i) {
        if (i >= count) break;
        const VecU even = (v[2 * i] & 0xffffu) | (v[2 * i + 1] << 16);
        const VecU odd = (v[2 * i] >> 16) | (v[2 * i + 1] & 0xffff0000u);
        store_words(out + i * panel_width, interleave_low(even, odd));
        store_words(out + i * panel_width + lanes, interleave_high(even, odd));
      }
    }
  }
}

// A quantised weight [k, n] read along its rows: squares of 32 × 32, dequantised and then turned over.
void panel_of_quantized(const Right& right, Element element, int64_t panel, int64_t first, int64_t last,
                        uint32_t* slab) {
  constexpr int64_t square = panel_width;
  const int64_t units = gemm::units_of(square, element);
  uint32_t words[square * square];
  const Right dense = {words, units, RightLayout::panels_transposed};
  for (int64_t unit = first; unit < last; unit += units, slab += units * panel_width) {
    dequantize_panel(right, element, unit / units, panel * square, (panel + 1) * square, words);
    const int64_t count = last - unit < units ? last - unit : units;
    if (element == Element::f32) {  // rows 0: nothing to fetch ahead of
      panel_of_panels_f32(dense, 0, square, 0, 0, count, slab);
    } else {
      panel_of_panels_bf16(dense, 0, square, 0, 0, count, slab);
    }
  }
}

// ---- left operands -------------------------------------------------------------------------------------------------

// Rows of the left operand lie along memory's columns: a unit's words are neighbours already.
void tile_of_columns(const gemm::PackLeft& args, int64_t row, int rows, int64_t first_unit, int64_t last_unit,
                     uint32_t* out) {
  constexpr bool widen = gemm::left_words(Isa::LATHE_ISA, Element::bf16) == 2;
  const int64_t stride = args.left.stride;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    if (args.element == Element::f32) {
      store_words(out, load_words_partial(static_cast<const float*>(args.left.data) + unit * stride + row, rows));
      out += rows;
      continue;
    }
    const uint16_t* p = static_cast<const uint16_t*>(args.left.data) + 2 * unit * stride + row;
    const VecH first = load_halves_partial(p, rows);
    const VecH second = 2 * unit + 1 < args.k ? load_halves_partial(p + stride, rows) : VecH{};
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

// A few units of all tiles at a time, because the units of one tile are scraps of 14 words, a whole row of memory apart: read
// tile by tile, each line comes from beyond the second-level cache once for every tile that shares it.
void tiles_of_columns(const gemm::PackLeft& args) {
  constexpr int64_t units_at_once = 8;
  const int64_t words = gemm::left_words(Isa::LATHE_ISA, args.element);
  for (int64_t unit = args.first_unit; unit < args.last_unit; unit += units_at_once) {
    const int64_t last = unit + units_at_once < args.last_unit ? unit + units_at_once : args.last_unit;
    for (int64_t tile = args.first_tile; tile < args.last_tile; ++tile) {
      const int64_t row = args.tiling.first_row(tile), rows = args.tiling.first_row(tile + 1) - row;
      uint32_t* out = args.packed + tile * args.tile_stride + (unit - args.first_unit) * rows * words;
      tile_of_columns(args, args.row_offset + row, static_cast<int>(rows), unit, last, out);
    }
  }
}

#if defined(LATHE_ISA_avx512_bf16)
// Squares of 4 × 4 words of one row turned over. Whole squares: a quantised weight has them.
void turn_squares(const gemm::PackLeft& args) {
  const Bf16Units row = {static_cast<const uint16_t*>(args.left.data), args.left.stride, args.k};
  const int64_t rows = args.tiling.rows;
  uint32_t* out = args.packed;
  for (int64_t unit = args.first_unit; unit < args.last_unit; unit += lanes)
    for (int64_t i = 0; i < rows; ++i, out += lanes) {
      const VecU v = Bf16Units::full(row, args.row_offset + i, unit);
      store_words(out, __builtin_shufflevector(v, v, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    }
}
#endif

}  // namespace

void pack_panel(const Right& right, Element element, int64_t k, int64_t n, int64_t panel, int64_t first, int64_t last,
                uint32_t* slab) {
  const bool f32 = element == Element::f32;
  switch (right.layout) {
    case RightLayout::panels: break;
    case RightLayout::panels_transposed:
      return f32 ? panel_of_panels_f32(right, k, n, panel, first, last, slab)
                 : panel_of_panels_bf16(right, k, n, panel, first, last, slab);
    case RightLayout::rows:
      return f32 ? panel_of_rows(F32Units{static_cast<const float*>(right.data), right.stride, k}, n, panel, first,
                                 last, slab)
                 : panel_of_rows(Bf16Units{static_cast<const uint16_t*>(right.data), right.stride, k}, n, panel, first,
                                 last, slab);
    case RightLayout::plain: return panel_of_plain(right, element, k, n, panel, first, last, slab);
    case RightLayout::quantized: {
      const int64_t k_per_unit = f32 ? 1 : 2;
      return dequantize_panel(right, element, panel, first * k_per_unit, last * k_per_unit, slab);
    }
    case RightLayout::quantized_transposed: return panel_of_quantized(right, element, panel, first, last, slab);
  }
}

void gemm_pack_left(const gemm::PackLeft& args) {
#if defined(LATHE_ISA_avx512_bf16)
  if (args.turned) return turn_squares(args);
#endif
  if (args.left.transposed) return tiles_of_columns(args);
  for (int64_t tile = args.first_tile; tile < args.last_tile; ++tile) {
    const int64_t tile_row = args.tiling.first_row(tile);
    const int rows = static_cast<int>(args.tiling.first_row(tile + 1) - tile_row);
    const int64_t row = args.row_offset + tile_row;
    uint32_t* out = args.packed + tile * args.tile_stride;
    if (args.element == Element::f32) {
      turn_rows(F32Units{static_cast<const float*>(args.left.data), args.left.stride, args.k}, row, rows,
                args.first_unit, args.last_unit, out, rows);
    } else if (gemm::left_words(Isa::LATHE_ISA, Element::bf16) == 1) {
      turn_rows(Bf16Units{static_cast<const uint16_t*>(args.left.data), args.left.stride, args.k}, row, rows,
                args.first_unit, args.last_unit, out, rows);
    } else {
      turn_rows(WidenedUnits{static_cast<const bf16*>(args.left.data), args.left.stride, args.k}, row, rows,
                2 * args.first_unit, 2 * args.last_unit, out, rows);
    }
  }
}

// Words of a panel that belong to other rows may be written by another thread at this moment: a run of rows that does
// not fill a vector is stored word by word.
void gemm_pack_rows(const gemm::PackRows& args) {
  const int64_t units = gemm::units_of(args.columns, args.element);
  const F32Units f32 = {args.rows, args.columns, args.columns};
  const RoundedUnits rounded = {args.rows, args.columns, args.columns};
  const bool rounds = args.element == Element::bf16;
  for (int64_t i = 0; i < args.count;) {
    const int64_t row = args.first + i;
    uint32_t* out = args.panels + row / panel_width * units * panel_width + row % panel_width;
    if (row % lanes == 0 && i + lanes <= args.count) {
      if (rounds) {
        turn_rows(rounded, i, lanes, 0, units, out, panel_width);
      } else {
        turn_rows(f32, i, lanes, 0, units, out, panel_width);
      }
      i += lanes;
    } else {
      for (int64_t unit = 0; unit < units; ++unit)
        out[unit * panel_width] = rounds ? RoundedUnits::one(rounded, i, unit) : F32Units::one(f32, i, unit);
      i += 1;
    }
  }
}

void gemm_unpack_rows(const gemm::UnpackRows& args) {
  const int64_t units = gemm::units_of(args.columns, args.element);
  for (int64_t i = 0; i < args.count; ++i) {
    const int64_t row = args.first + i;
    const uint32_t* in = args.panels + row / panel_width * units * panel_width + row % panel_width;
    float* out = args.rows + i * args.columns;
    for (int64_t unit = 0; unit < units; ++unit) {
      const uint32_t word = in[unit * panel_width];
      if (args.element == Element::f32) {
        __builtin_memcpy(out + unit, &word, 4);
        continue;
      }
      const uint32_t first = word << 16, second = word & 0xffff0000u;
      __builtin_memcpy(out + 2 * unit, &first, 4);
      if (2 * unit + 1 < args.columns) __builtin_memcpy(out + 2 * unit + 1, &second, 4);
    }
  }
}

}  // namespace lathe::kernels::LATHE_ISA
