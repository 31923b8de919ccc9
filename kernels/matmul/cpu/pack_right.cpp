// Panels of the right operand, in the order in which the kernels read them: rows are transposed in registers, codes
// decoded.
#include "kernels/matmul/cpu/pack_right.h"

#include "kernels/matmul/cpu/codes.h"
#include "kernels/matmul/cpu/transpose_rows.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using gemm::panel_width;

template <class Source>
void pack_rows_panel(const Source& source, int64_t n, int64_t panel, int64_t first, int64_t last, uint32_t* words) {
  for (int64_t lane = 0; lane < panel_width; lane += lanes) {
    const int64_t row = panel * panel_width + lane;
    const int64_t rows = n - row < 0 ? 0 : n - row < lanes ? n - row : lanes;
    transpose_rows(source, row, static_cast<int>(rows), first, last, words + lane, panel_width);
  }
}

// Along each k step through all panels: its rows lie far apart in memory, and panel by panel each would be read from
// another page again.
void pack_plain_panels(const DensePanels& panels, int64_t first, int64_t last, uint32_t* words, int64_t distance) {
  const auto& [right, layout, k, n, first_panel, last_panel] = panels;
  for (int64_t step = first; step < last; ++step, words += panel_width) {
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      uint32_t* const out = words + (panel - first_panel) * distance;
      for (int64_t lane = 0; lane < panel_width; lane += lanes) {
        const int64_t column = panel * panel_width + lane;
        const int count = static_cast<int>(n - column < 0 ? 0 : n - column < lanes ? n - column : lanes);
        VecU v{};
        if (count == 0) {
        } else if (right.dtype == DType::f32) {
          v = load_words(static_cast<const float*>(right.data) + step * right.stride + column, count);
        } else {
          const uint16_t* row = static_cast<const uint16_t*>(right.data) + 2 * step * right.stride + column;
          const VecH second = 2 * step + 1 < k ? load_halves(row + right.stride, count) : VecH{};
          v = make_pairs(load_halves(row, count), second);
        }
        store_words(out + lane, v);
      }
    }
  }
}

// What one transposition reads of a packed weight is one cache line from each of `lanes` places 128 bytes apart, too
// few for the hardware's prefetcher to start: the lines of the transposition after the next are prefetched meanwhile.
LATHE_INLINE void prefetch_lines(const uint32_t* source) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) __builtin_prefetch(source + i * panel_width);
}

// A weight [k, n] in panels [⌈k/32⌉][k steps along n][32 rows of the weight], panel_words each; its rows are the
// reduced index here.
struct TransposedPanels {
  const uint32_t* words;
  int64_t panel_words, k, n;
};

void pack_transposed_f32(const TransposedPanels& from, int64_t panel, int64_t first, int64_t last, uint32_t* words) {
  const auto [panels, panel_words, k, n] = from;
  for (int64_t row = first; row < last; row += lanes) {
    const uint32_t* source = panels + row / panel_width * panel_words + row % panel_width;
    const int rows = static_cast<int>(last - row < lanes ? last - row : lanes);
    const int64_t ahead = row + 2 * lanes;
    const uint32_t* next = panels + ahead / panel_width * panel_words + ahead % panel_width;
    for (int64_t lane = 0; lane < panel_width; lane += lanes) {
      const int64_t column = panel * panel_width + lane;
      if (ahead < k && column + lanes <= n) prefetch_lines(next + column * panel_width);
      VecU v[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) v[i] = column + i < n ? load_words(source + (column + i) * panel_width) : VecU{};
      transpose(v);
      uint32_t* out = words + (row - first) * panel_width + lane;
      if (rows == lanes) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) store_words(out + i * panel_width, v[i]);
      } else {
        for (int i = 0; i < rows; ++i) store_words(out + i * panel_width, v[i]);
      }
    }
  }
}

// The same for pairs: a word of the weight pairs two columns of one row, a word of the result two rows of one column.
void pack_transposed_bf16(const TransposedPanels& from, int64_t panel, int64_t first, int64_t last, uint32_t* words) {
  const auto [panels, panel_words, k, n] = from;
  const int64_t column_pairs = (n + 1) / 2;
  for (int64_t step = first; step < last; step += lanes / 2) {
    const int64_t row = 2 * step;
    const uint32_t* source = panels + row / panel_width * panel_words + row % panel_width;
    const int64_t count = last - step < lanes / 2 ? last - step : lanes / 2;
    const int64_t ahead = row + 2 * lanes;
    const uint32_t* next = panels + ahead / panel_width * panel_words + ahead % panel_width;
    for (int64_t lane = 0; lane < panel_width; lane += 2 * lanes) {
      const int64_t column_pair = (panel * panel_width + lane) / 2;
      if (ahead < k && column_pair + lanes <= column_pairs) prefetch_lines(next + column_pair * panel_width);
      VecU v[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i)
        v[i] = column_pair + i < column_pairs ? load_words(source + (column_pair + i) * panel_width) : VecU{};
      transpose(v);
      uint32_t* out = words + (step - first) * panel_width + lane;
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

// Elements [first, last) along a panel of pairs of bf16 as f32; past `columns` of them come zeros. All are even.
void widen_panel(const WeightPanels& panels, int64_t panel, int64_t first, int64_t last, int64_t columns,
                 uint32_t* words) {
  const uint32_t* pairs = static_cast<const uint32_t*>(panels.data) + panel * (panels.panel_bytes / 4);
  for (int64_t column = first; column < last; column += 2, words += 2 * panel_width)
    for (int64_t lane = 0; lane < panel_width; lane += lanes) {
      const VecU v = column < columns ? load_words(pairs + column / 2 * panel_width + lane) : VecU{};
      store_words(words + lane, (VecU)first_of_pairs(v));
      store_words(words + panel_width + lane, (VecU)second_of_pairs(v));
    }
}

// Codes [k, n] read along the weight's rows: decoded 32 × 32 at a time, then transposed. So are words that are widened.
void pack_transposed_codes(const ProductArgs& product, int64_t panel, int64_t first, int64_t last, uint32_t* words) {
  constexpr int64_t side = panel_width;
  const DType dtype = product.dtype;
  const int64_t steps = gemm::k_steps(side, dtype);
  uint32_t decoded[side * side];
  const TransposedPanels from = {decoded, steps * side, 0, side};  // k 0: nothing to prefetch
  for (int64_t step = first; step < last; step += steps, words += steps * panel_width) {
    if (product.panels.widens) {
      widen_panel(product.panels, step / steps, panel * side, (panel + 1) * side, product.n, decoded);
    } else {
      with_format(
          product.panels.format, [&]<class Format>() __attribute__((always_inline)) {
            decode_panel<Format>(product.panels, dtype, step / steps, panel * side, (panel + 1) * side, decoded);
          });
    }
    const int64_t count = last - step < steps ? last - step : steps;
    dtype == DType::f32 ? pack_transposed_f32(from, 0, 0, count, words)
                        : pack_transposed_bf16(from, 0, 0, count, words);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void pack_dense_panels(const DensePanels& panels, int64_t first, int64_t last, uint32_t* words, int64_t distance) {
  const auto& [right, layout, k, n, first_panel, last_panel] = panels;
  if (layout != ProductLayout::rows_rows) return pack_plain_panels(panels, first, last, words, distance);
  for (int64_t panel = first_panel; panel < last_panel; ++panel, words += distance) {
    if (right.dtype == DType::f32) {
      pack_rows_panel(F32Rows{static_cast<const float*>(right.data), right.stride, k}, n, panel, first, last, words);
    } else {
      pack_rows_panel(Bf16Rows{static_cast<const uint16_t*>(right.data), right.stride, k}, n, panel, first, last,
                      words);
    }
  }
}
template void pack_dense_panels<Isa::LATHE_ISA>(const DensePanels&, int64_t, int64_t, uint32_t*, int64_t);

template <Isa>
void pack_weight_panel(const ProductArgs& product, int64_t panel, int64_t first, int64_t last, uint32_t* words) {
  const WeightPanels& panels = product.panels;
  const bool f32 = product.dtype == DType::f32;
  if (product.layout == ProductLayout::rows_rows) {
    if (panels.widens) return widen_panel(panels, panel, first, last, product.k, words);
    const int64_t k_per_step = f32 ? 1 : 2;
    return with_format(
        panels.format, [&]<class Format>() __attribute__((always_inline)) {
          decode_panel<Format>(panels, product.dtype, panel, first * k_per_step, last * k_per_step, words);
        });
  }
  if (panels.group > 0 || panels.widens) return pack_transposed_codes(product, panel, first, last, words);
  const TransposedPanels from = {static_cast<const uint32_t*>(panels.data), panels.panel_bytes / 4, product.k,
                                 product.n};
  f32 ? pack_transposed_f32(from, panel, first, last, words) : pack_transposed_bf16(from, panel, first, last, words);
}
template void pack_weight_panel<Isa::LATHE_ISA>(const ProductArgs&, int64_t, int64_t, int64_t, uint32_t*);

}  // namespace lathe::kernels
