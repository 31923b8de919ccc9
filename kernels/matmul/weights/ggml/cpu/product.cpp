// Products of quantised activations with panels of ggml's blocks. For each block of 32 an exact sum of integers, then
// one fused multiply-add with the scales: a chain in the order of the blocks, whatever the rows and the instruction
// set.
#include "kernels/matmul/weights/ggml/cpu/block_sums.h"
#include "kernels/matmul/weights/ggml/cpu/decoders.h"
#include "kernels/matmul/weights/ggml/cpu/results.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using ggml::GgmlProductArgs;
using ggml::GgmlTask;
using ggml::panel_rows;

LATHE_INLINE VecI splat_integer(int32_t value) { return value - VecI{}; }

// −offset · Σ of the activations that a scale's sum is of, so that codes need no subtraction each.
template <class Decoder>
LATHE_INLINE int32_t offset_of(const ggml::BlockScale& block, int half) {
  return -Decoder::offset * (Decoder::scales == 2 ? block.sums[half] : block.sums[0] + block.sums[1]);
}

// Asks for the lines that lie `ahead` bytes after those of block `b`, which may be the next panels'.
template <class Decoder>
LATHE_INLINE void prefetch_codes(const uint8_t* panel, int64_t b, int64_t ahead) {
  const uint8_t* const end = Decoder::block(panel, b + 1) + ahead;
  for (const uint8_t* line = Decoder::block(panel, b) + ahead; line < end; line += 64) __builtin_prefetch(line);
}

// Blocks [first, last) of a panel, which begins with block `first`, times the `rows` rows of a tile, added to sums
// [rows][16].
template <class Decoder, class Sums, int rows>
void multiply_tile(const uint8_t* panel, int64_t first, int64_t last, const uint32_t* words,
                   const ggml::BlockScale* scales, int64_t prefetch_bytes, float* sums) {
  constexpr int vectors = ggml_vectors;
  Vec totals[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) totals[i][v] = load(sums + i * panel_rows + v * lanes);
  words += first * rows * Sums::words, scales += first * rows;
  for (int64_t b = 0; b < last - first; ++b, words += rows * Sums::words, scales += rows) {
    if (prefetch_bytes > 0) prefetch_codes<Decoder>(panel, b, prefetch_bytes);
#pragma GCC unroll 2
    for (int half = 0; half < Decoder::scales; ++half) {
      VecI products[rows][vectors] = {};
      Sums::template add<Decoder>(panel, b, half, words, products);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Vec scale = Decoder::scale(panel, b, half, v);
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i) {
          VecI sum = products[i][v];
          if constexpr (Decoder::offset != 0) sum += splat_integer(offset_of<Decoder>(scales[i], half));
          totals[i][v] = fused(__builtin_convertvector(sum, Vec), scale * splat(scales[i].scale), totals[i][v]);
        }
      }
      if constexpr (Decoder::has_minimum) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const Vec minimum = Decoder::minimum(panel, b, half, v);
#pragma GCC unroll 16
          for (int i = 0; i < rows; ++i) {
            const float sum = scales[i].template scaled_sum_of<Decoder::scales>(half);
            totals[i][v] = fused(minimum, splat(sum), totals[i][v]);
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(sums + i * panel_rows + v * lanes, totals[i][v]);
}

// Tiles [first_tile, last_tile), of up to `most` rows each.
template <class Decoder, class Sums, int most>
void multiply_tiles(const uint8_t* panel, int64_t first, int64_t last, const GgmlProductArgs& args,
                    const GgmlTask& task, float* sums) {
  const ggml::QuantizedRows& left = args.left;
  for (int64_t tile = task.first_tile; tile < task.last_tile; ++tile) {
    const int64_t rows = left.rows_of(tile), prefetch_bytes = tile == task.first_tile ? task.prefetch_bytes : 0;
    const auto multiply = [&]<int count>(auto& next) {
      if (rows == count)
        return multiply_tile<Decoder, Sums, count>(panel, first, last, left.tile_words(tile), left.tile_scales(tile),
                                                   prefetch_bytes, sums);
      if constexpr (count > 1) next.template operator()<count - 1>(next);
    };
    multiply.template operator()<most>(multiply);
    sums += rows * panel_rows;
  }
}

template <class Decoder>
using UnpackedOf = Unpacked<Decoder::scales, Decoder::has_minimum>;

template <class Decoder>
void unpack(const uint8_t* panel, int64_t first, int64_t last, uint8_t* out) {
  using To = UnpackedOf<Decoder>;
  for (int64_t b = first; b < last; ++b, out += To::block_bytes) {
    for (int v = 0; v < ggml_vectors; ++v) {
      const int64_t rows = v * lanes * 4;
      for (int half = 0; half < Decoder::scales; ++half) {
        store_words(out + half * ggml::bits_plane + rows, (VecU)Decoder::scale(panel, b, half, v));
        if constexpr (Decoder::has_minimum) {
          const VecU minimum = (VecU)Decoder::minimum(panel, b, half, v);
          store_words(out + (Decoder::scales + half) * ggml::bits_plane + rows, minimum);
        }
      }
    }
    const auto store_pair = [&](int pair, const VecU(&weights)[ggml_vectors]) __attribute__((always_inline)) {
      uint8_t* const word = out + To::pairs + pair * ggml::bits_plane;
#pragma GCC unroll 4
      for (int v = 0; v < ggml_vectors; ++v)
        store_words(word + v * lanes * 4, (VecU)((VecS)weights[v] - static_cast<int16_t>(Decoder::offset)));
    };
#pragma GCC unroll 2
    for (int half = 0; half < Decoder::scales; ++half) for_each_pair<Decoder>(panel, b, half, store_pair);
  }
}

template <class Format>
void multiply_panel(const GgmlProductArgs& args, const GgmlTask& task, const uint8_t* panel, float* sums) {
  using Codes = Decoder<Format>;
  constexpr Isa isa = Isa::LATHE_ISA;
  const int64_t blocks = args.left.blocks;
  if (task.workspace == nullptr)
    return multiply_tiles<Codes, DirectSums, ggml::tile_rows(isa, true)>(panel, 0, blocks, args, task, sums);
  for (int64_t first = 0; first < blocks; first += ggml::unpacked_blocks) {
    const int64_t last = blocks - first < ggml::unpacked_blocks ? blocks : first + ggml::unpacked_blocks;
    unpack<Codes>(panel, first, last, task.workspace);
    multiply_tiles<UnpackedOf<Codes>, PairSums, ggml::tile_rows(isa, false)>(task.workspace, first, last, args, task,
                                                                             sums);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels::ggml {

template <Isa>
void multiply_blocks(const GgmlProductArgs& args, const GgmlTask& task) {
  float sums[task_shape(Isa::LATHE_ISA).rows * panel_rows];
  const int64_t first_row = args.left.tiling.first_row(task.first_tile);
  const int64_t last_row = args.left.tiling.first_row(task.last_tile);
  for (int64_t p = task.first_panel; p < task.last_panel; ++p) {
    for (int64_t i = 0; i < (last_row - first_row) * panel_rows; i += lanes) {
      store(sums + i, zero());
      asm("" : "+r"(i));  // or GCC calls memset, thousands of times a token for 64 bytes
    }
    const uint8_t* panel = args.panels + p * args.panel_bytes;
    with_format(args.format, [&]<class Format>() { multiply_panel<Format>(args, task, panel, sums); });
    for (const SecondPair& pair : args.second_pairs) add_second_pair(pair, args.n, p, first_row, last_row, sums);
    write_rows(args, p, first_row, last_row, sums);
  }
}
template void multiply_blocks<Isa::LATHE_ISA>(const GgmlProductArgs&, const GgmlTask&);

}  // namespace lathe::kernels::ggml
