// Products of quantised activations with panels of ggml's blocks by tiles: the bits of cpu/product.cpp's, which sum a
// block's products as integers and convert the sum to f32.
//
// Tiles multiply pairs of bf16 and sum in f32 (kernels/simd/amx.h). Codes, 256 · high and low are numbers of bf16. A
// block's first product sums 256 · high · code: multiples of 256 up to 2^27, none of which is rounded. The second one
// sums low · code, below 2^20, and adds that to the first: one rounding to the nearest even, as of the conversion.
// Where 16 neighbours have a scale their codes are up to 2^5 and all sums up to 2^24: one product of high and low
// together. Where they reach further (has_wide_halves), a half's sum is made as a block's is, of codes that are 0 in
// the other half.
//
// Two blocks, or the halves of one, of a tile's rows stay in four tiles while the codes of up to 8 panels pass. (What a
// product costs is loading tiles: rows and codes both anew took 75 cycles for 16 rows, 16 columns and a block, rows for
// four panels 63 to 70, so 60, vpdpwssd 140 to 160.) Vectors scale the sums of one panel while tiles multiply the next.
#include "kernels/matmul/weights/ggml/cpu/block_sums.h"
#include "kernels/matmul/weights/ggml/cpu/results.h"
#include "kernels/simd/amx.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using ggml::BlockScale;
using ggml::GgmlProductArgs;
using ggml::GgmlTask;
using ggml::panel_rows;

constexpr int64_t tile_bytes = tile_side * 64, sums_of_tile = tile_side * panel_rows;

// Codes less their offset as bf16, by their six bits.
template <int offset>
struct Table {
  alignas(64) uint16_t bits[64] = {};
  constexpr Table() {
    for (int code = 0; code < 64; ++code)
      bits[code] = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, static_cast<float>(code - offset)) >> 16);
  }
};

// A pair of codes less their offset. Codes are bytes with a sign, or at most 63, or, with an offset of 64, below 128.
template <class Decoder>
LATHE_INLINE VecU bf16_pair(VecU codes) {
  if constexpr (Decoder::signed_codes || Decoder::offset == 64) {
    codes = (VecU)((VecS)codes - static_cast<int16_t>(Decoder::offset));
    const VecU first = (VecU) __builtin_convertvector((VecI)(codes << 16) >> 16, Vec);
    const VecU second = (VecU) __builtin_convertvector((VecI)codes >> 16, Vec);
    return first >> 16 | (second & 0xffff0000u);
  } else {
    static constexpr Table<Decoder::offset> table;
    return (VecU)_mm512_permutex2var_epi16(_mm512_load_si512(table.bits), (__m512i)codes,
                                           _mm512_load_si512(table.bits + 32));
  }
}

// What unpack() leaves for a sum, one of a block or of each of its halves: its scales, [16 columns] f32, the block's
// minima, and its codes as a tile, pairs of bf16. Two sums of a panel lie together, then those of the next panel.
template <class Format>
struct Unpacked16 {
  static constexpr bool has_minimum = Format::has_minimum;
  static constexpr int sums_of_block = Format::scales;
  static constexpr bool wide_halves = ggml::has_wide_halves<Format>;  // of which both sums are of the same rows
  static constexpr int digits = wide_halves ? 2 : 3 - sums_of_block;  // products of a sum
  static constexpr int64_t minimum = 64, codes = (1 + has_minimum) * 64, bytes = codes + tile_bytes;
};

template <class Format>
void unpack(const uint8_t* panel, int64_t first, int64_t last, int64_t panels, uint8_t* out) {
  using Codes = Decoder<Format>;
  using To = Unpacked16<Format>;
  for (int64_t b = first; b < last; ++b) {
    for (int half = 0; half < To::sums_of_block; ++half) {
      const int64_t sum = (b - first) * To::sums_of_block + half;
      uint8_t* to = out + (sum / 2 * panels * 2 + sum % 2) * To::bytes;
      store_words(to, (VecU)Codes::scale(panel, b, half, 0));
      if constexpr (To::has_minimum) store_words(to + To::minimum, (VecU)Codes::minimum(panel, b, half, 0));
      to += To::codes;
      const auto store_pair = [&](int pair, const VecU(&weights)[ggml_vectors]) __attribute__((always_inline)) {
        const VecU numbers = bf16_pair<Codes>(weights[0]);
        if constexpr (To::sums_of_block == 1) {
          store_words(to + pair * ggml::bits_plane, numbers);
        } else {
          const int i = pair - half * 8, other = 8 * (1 - half);
          store_words(to + (To::wide_halves ? pair : i) * ggml::bits_plane, numbers);
          store_words(to + ((To::wide_halves ? other : 8) + i) * ggml::bits_plane,
                      To::wide_halves ? VecU{} : numbers);  // for low
        }
      };
      for_each_pair<Codes>(panel, b, half, store_pair);
    }
  }
}

// A tile's rows and what they are multiplied with.
struct Rows {
  const char* words;
  const BlockScale* scales;
  int64_t rows;
};

// A panel's two sums with a tile's rows, which lie in `products`, scaled and added to sums [16][16].
template <class Format, int count>
LATHE_INLINE void add_products(const float* products, const uint8_t* unpacked, const Rows& rows, float* sums) {
  using From = Unpacked16<Format>;
  Vec scale[count];
#pragma GCC unroll 2
  for (int s = 0; s < count; ++s) scale[s] = load(reinterpret_cast<const float*>(unpacked + s * From::bytes));
#pragma GCC unroll 16
  for (int i = 0; i < tile_side; ++i) {
    Vec sum = load(sums + i * panel_rows);
#pragma GCC unroll 2
    for (int s = 0; s < count; ++s) {
      const BlockScale& row = rows.scales[s / From::sums_of_block * rows.rows + i];
      const Vec product = load(products + s * sums_of_tile + i * panel_rows);
      sum = fma(product, scale[s] * splat(row.scale), sum);
      if constexpr (From::has_minimum) {
        const Vec minimum = load(reinterpret_cast<const float*>(unpacked + s * From::bytes + From::minimum));
        sum = fma(minimum, splat(row.scaled_sum_of<From::sums_of_block>(s % From::sums_of_block)), sum);
      }
    }
    store(sums + i * panel_rows, sum);
  }
}

// Tiles 2 and 3 are the rows' for the first of two sums, 4 and 5 for the second; 6 and 7 the codes', 0 and 1 the sums.
template <class Unpacked, int count>
LATHE_INLINE void load_rows(const Rows& rows) {
  constexpr int digits = Unpacked::digits;
  const int64_t step = rows.rows * 64;
  const char* const second = rows.words + (Unpacked::wide_halves ? 0 : digits * step);
  load_tile<2>(rows.words, 64);
  if constexpr (digits == 2) load_tile<3>(rows.words + step, 64);
  if constexpr (count == 2) load_tile<4>(second, 64);
  if constexpr (count == 2 && digits == 2) load_tile<5>(second + step, 64);
}
template <int sum, int digits>
LATHE_INLINE void multiply_codes() {
  zero_tile<sum>();
  multiply_pairs<sum, 2 + 2 * sum, 6 + sum>();
  if constexpr (digits == 2) multiply_pairs<sum, 3 + 2 * sum, 6 + sum>();
}

// `count` unpacked sums of `panels` panels times a tile's rows, added to sums [panels][16][16].
template <class Format>
void multiply_tile(Rows rows, const uint8_t* unpacked, int64_t count, int64_t panels, float* sums) {
  using From = Unpacked16<Format>;
  constexpr int digits = From::digits;
  alignas(64) float buffers[2][2 * sums_of_tile];  // in turn: one alone made a product a twentieth slower
  float* products = buffers[0];
  Rows before = rows;  // whose sums with a panel are in tiles 0 and 1
  const uint8_t* unpacked_before = nullptr;
  float* sums_before = sums;
  const auto add_before = [&]() __attribute__((always_inline)) {
    add_products<Format, 2>(products, unpacked_before, before, sums_before);
  };
  const int64_t step_bytes = (From::wide_halves ? 1 : 2) * digits * rows.rows * 64;
  const int64_t lines_each = (step_bytes / 64 + panels - 1) / panels;
  for (; count >= 2; count -= 2) {
    load_rows<From, 2>(rows);
    for (int64_t panel = 0; panel < panels; ++panel, unpacked += 2 * From::bytes) {
      const bool any_before = unpacked_before != nullptr;
      // The next blocks of the rows come from afar: a twelfth faster.
      for (int64_t line = panel * lines_each; line < (panel + 1) * lines_each; ++line)
        __builtin_prefetch(rows.words + step_bytes + line * 64);
      load_tile<6>(unpacked + From::codes, 64);
      if (any_before) store_tile<0>(products, 64);
      multiply_codes<0, digits>();
      load_tile<7>(unpacked + From::bytes + From::codes, 64);
      if (any_before) store_tile<1>(products + sums_of_tile, 64);
      multiply_codes<1, digits>();
      if (any_before) add_before();
      products = products == buffers[0] ? buffers[1] : buffers[0];
      before = rows, unpacked_before = unpacked, sums_before = sums + panel * sums_of_tile;
    }
    rows.words += step_bytes;
    rows.scales += 2 / From::sums_of_block * rows.rows;
  }
  if (unpacked_before != nullptr) {
    store_tile<0>(products, 64);
    store_tile<1>(products + sums_of_tile, 64);
    add_before();
  }
  if constexpr (From::sums_of_block == 1) {
    if (count == 0) return;
    load_rows<From, 1>(rows);
    for (int64_t panel = 0; panel < panels; ++panel, unpacked += 2 * From::bytes) {
      load_tile<6>(unpacked + From::codes, 64);
      multiply_codes<0, digits>();
      store_tile<0>(products, 64);
      add_products<Format, 1>(products, unpacked, rows, sums + panel * sums_of_tile);
    }
  }
}

// sums [tiles][panels][16][16] of panels from `panel` on.
template <class Format>
void multiply_panels(const GgmlProductArgs& args, const GgmlTask& task, int64_t panel, int64_t panels, float* sums) {
  using To = Unpacked16<Format>;
  constexpr int64_t blocks_each = ggml::amx_sums / To::sums_of_block;
  const ggml::QuantizedRows& left = args.left;
  for (int64_t first = 0; first < left.blocks; first += blocks_each) {
    const int64_t last = left.blocks - first < blocks_each ? left.blocks : first + blocks_each;
    for (int64_t p = 0; p < panels; ++p) {
      unpack<Format>(args.panels + (panel + p) * args.panel_bytes, first, last, panels,
                     task.workspace + p * 2 * To::bytes);
    }
    for (int64_t tile = task.first_tile; tile < task.last_tile; ++tile) {
      const int64_t rows = left.rows_of(tile);
      multiply_tile<Format>({reinterpret_cast<const char*>(left.tile_words(tile) + first * 32 * rows),
                             left.tile_scales(tile) + first * rows, rows},
                            task.workspace, (last - first) * To::sums_of_block, panels,
                            sums + (tile - task.first_tile) * panels * sums_of_tile);
    }
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels::ggml {

template <>
void multiply_blocks<Isa::amx>(const GgmlProductArgs& args, const GgmlTask& task) {
  using namespace LATHE_ISA;
  const TileScope tiles;
  const int64_t first_row = args.left.tiling.first_row(task.first_tile);
  const int64_t last_row = args.left.tiling.first_row(task.last_tile);
  float* const sums = reinterpret_cast<float*>(task.workspace + amx_unpacked_bytes);
  alignas(64) float of_panel[amx_rows * panel_rows];
  for (int64_t panel = task.first_panel; panel < task.last_panel; panel += amx_panels) {
    const int64_t panels = task.last_panel - panel < amx_panels ? task.last_panel - panel : amx_panels;
    for (int64_t i = 0; i < (task.last_tile - task.first_tile) * panels * sums_of_tile; ++i) sums[i] = 0;
    with_format(args.format, [&]<class Format>() { multiply_panels<Format>(args, task, panel, panels, sums); });
    for (int64_t p = 0; p < panels; ++p) {
      float* to = of_panel;
      for (int64_t tile = task.first_tile; tile < task.last_tile; ++tile) {
        const float* from = sums + ((tile - task.first_tile) * panels + p) * sums_of_tile;
        for (int64_t i = 0; i < args.left.rows_of(tile); ++i, from += panel_rows, to += panel_rows)
          store(to, load(from));
      }
      for (const SecondPair& pair : args.second_pairs)
        add_second_pair(pair, args.n, panel + p, first_row, last_row, of_panel);
      write_rows(args, panel + p, first_row, last_row, of_panel);
    }
  }
}

}  // namespace lathe::kernels::ggml
