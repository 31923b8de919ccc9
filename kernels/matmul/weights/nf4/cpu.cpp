#include "kernels/matmul/cpu/codes_product.h"
#include "kernels/matmul/weights/nf4/pair_tables.h"
#include "kernels/nf4/cpu_codebook.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

struct Nf4Decoder {
  // The codes come from four places at a time, 64 bytes from each: the hardware's prefetcher is late.
  static constexpr bool prefetches = true;
  Nf4Table table = nf4_table();

  struct Chunk {
    VecU words[segments][half_vectors];  // of a row each
  };
  LATHE_INLINE Chunk load_chunk(const uint8_t* codes, int64_t group, int64_t chunk, int64_t half) const {
    const int64_t quad_bytes = Nf4Format::quad_bytes(group);
    Chunk result;
#pragma GCC unroll 4
    for (int j = 0; j < half_vectors; ++j) {
      Vec v[4];
#pragma GCC unroll 4
      for (int quad = 0; quad < 4; ++quad)
        v[quad] = (Vec)load_words(codes + (half * 4 + quad) * quad_bytes + chunk * 64 + j * lanes * 4);
      transpose_squares(v);
#pragma GCC unroll 4
      for (int segment = 0; segment < segments; ++segment) result.words[segment][j] = (VecU)v[segment];
    }
    return result;
  }

  template <DType dtype>
  LATHE_INLINE void decode(const Chunk& chunk, int segment, int pair, const RowScales<dtype>& scales,
                           DecodedWords<dtype>& words) const {
#pragma GCC unroll 4
    for (int j = 0; j < half_vectors; ++j) {
      const VecU codes = chunk.words[segment][j];
      put(words, j, look_up(table, codes >> 4 * pair) * scales.rows[j],
          look_up(table, codes >> (4 * pair + 16)) * scales.rows[j]);
    }
  }
};

#if defined(LATHE_ISA_avx512_bf16)
constexpr int quads = gemm::panel_width / 4;  // of rows, whose tables share a pair of vectors
constexpr int half_quads = 4;

LATHE_INLINE Nf4PairTables tables_of(const Nf4Table& codebook, const CodeGroup& group, int quad) {
  return Nf4PairTables(codebook, group.scales + quad / half_quads * half_rows + quad % half_quads);
}

// As ChunkDecoder.
struct TableDecoder {
  Nf4Table codebook = nf4_table();
  LATHE_INLINE void decode(const CodeGroup& group, int64_t group_k, int64_t first, int64_t last, int half,
                           uint32_t* out) const {
    Nf4PairTables tables[half_quads];
#pragma GCC unroll 4
    for (int i = 0; i < half_quads; ++i) tables[i] = tables_of(codebook, group, half * half_quads + i);
    for (int64_t at = first; at < last; ++at, out += segments * segment_pairs * gemm::panel_width) {
      const uint8_t* codes = group.codes + half * half_quads * Nf4Format::quad_bytes(group_k) + at * 64;
      Nf4TablePlaces places[half_quads];
#pragma GCC unroll 4
      for (int i = 0; i < half_quads; ++i) places[i] = Nf4TablePlaces(codes + i * Nf4Format::quad_bytes(group_k));
#pragma GCC unroll 4
      for (int pair = 0; pair < segment_pairs; ++pair) {
        Vec words[half_quads];
#pragma GCC unroll 4
        for (int i = 0; i < half_quads; ++i) words[i] = (Vec)places[i].look_up(pair, tables[i]);
        transpose_squares(words);
#pragma GCC unroll 4
        for (int segment = 0; segment < segments; ++segment)
          store_words(out + (segment * segment_pairs + pair) * gemm::panel_width, (VecU)words[segment]);
      }
    }
  }
};

// Sums of `at_once` quads of rows stay in registers for all groups of the k block; `together` of them share what is
// loaded of the left operand. The lanes of a sum are four rows × four chains.
template <int rows, int group_chunks>
void multiply_by_tables(const CodeRange& first, const SecondRange& second, float* accumulators, bool begins, int64_t) {
  constexpr int at_once = rows <= 2 ? 8 : 4, together = rows == 1 ? 2 : rows == 2 ? 1 : 4;
  using Step = PairStep<rows, 1>;
  const Nf4Table codebook = nf4_table();
  const WeightPanels& panels = first.panels;
  constexpr int64_t group_k = group_chunks * gemm::decode_chunk, quad_bytes = Nf4Format::quad_bytes(group_k);
  const int64_t first_group = 2 * first.first_step / group_k, last_group = 2 * first.last_step / group_k;
  Vec all[quads][rows];
  for (int begin = 0; begin < quads; begin += at_once) {
    Vec sums[1][at_once][rows];
    clear(sums);
    const uint32_t* left = first.left;
    GroupPrefetch<Nf4Format> prefetch(first, first_group, last_group, begin / at_once, quads / at_once);
    for (int64_t g = first_group; g < last_group; ++g) {
      const CodeGroup group = group_at<Nf4Format>(panels, first.panel, g);
      prefetch.next_group();
#pragma GCC unroll 8
      for (int quad = 0; quad < at_once; quad += together) {
        Nf4PairTables tables[together];
#pragma GCC unroll 4
        for (int i = 0; i < together; ++i) tables[i] = tables_of(codebook, group, begin + quad + i);
        const uint8_t* codes = group.codes + (begin + quad) * quad_bytes;
        const uint32_t* words = left;
#pragma GCC unroll 2
        for (int chunk = 0; chunk < group_chunks; ++chunk, words += rows * lanes) {
          Nf4TablePlaces places[together];
#pragma GCC unroll 4
          for (int i = 0; i < together; ++i) places[i] = Nf4TablePlaces(codes + i * quad_bytes + chunk * 64);
#pragma GCC unroll 4
          for (int pair = 0; pair < segment_pairs; ++pair) {
            __m512bh weights[together];
#pragma GCC unroll 4
            for (int i = 0; i < together; ++i) weights[i] = (__m512bh)places[i].look_up(pair, tables[i]);
#pragma GCC unroll 4
            for (int row = 0; row < rows; ++row) {
              const __m512bh x = (__m512bh)_mm512_broadcast_i32x4(
                  _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + row * lanes + pair * 4)));
#pragma GCC unroll 4
              for (int i = 0; i < together; ++i) {
                Vec& sum = sums[0][quad + i][row];
                sum = (Vec)_mm512_dpbf16_ps((__m512)sum, x, weights[i]);
              }
            }
          }
        }
      }
      left += rows * group_k / 2;
    }
#pragma GCC unroll 8
    for (int quad = 0; quad < at_once; ++quad)
#pragma GCC unroll 4
      for (int row = 0; row < rows; ++row) all[begin + quad][row] = sums[0][quad][row];
  }
  for (int half = 0; half < quads / half_quads; ++half) {
    Vec chains[Step::chains][rows][1];
#pragma GCC unroll 4
    for (int row = 0; row < rows; ++row) {
      Vec words[half_quads];
      for (int i = 0; i < half_quads; ++i) words[i] = all[half * half_quads + i][row];
      transpose_squares(words);
      for (int chain = 0; chain < Step::chains; ++chain) chains[chain][row][0] = words[chain];
    }
    finish_chains<Step>(chains, second, accumulators, begins, half * half_rows);
  }
}

using PairsDecoder = TableDecoder;
template <int rows>
CodeTileKernel pairs_kernel(int64_t group) {
  return group == gemm::decode_chunk ? multiply_by_tables<rows, 1> : multiply_by_tables<rows, 2>;
}
#else
using PairsDecoder = ChunkDecoder<Nf4Decoder, DType::bf16>;
template <int rows>
CodeTileKernel pairs_kernel(int64_t) {
  return multiply_codes<Nf4Format, Nf4Decoder, DType::bf16, rows>;
}
#endif

}  // namespace

template <>
void decode_panel<Nf4Format>(const WeightPanels& panels, DType dtype, int64_t panel, int64_t first_k, int64_t last_k,
                             uint32_t* words) {
  if (dtype == DType::bf16)
    return decode_panel_by<Nf4Format, PairsDecoder>(panels, dtype, panel, first_k, last_k, words);
  decode_panel_by<Nf4Format, ChunkDecoder<Nf4Decoder, DType::f32>>(panels, dtype, panel, first_k, last_k, words);
}

template <>
CodeTileKernel code_tile_kernel<Nf4Format>(const WeightPanels& panels, DType dtype, int64_t rows) {
  return with_rows(rows, [&]<int count>() -> CodeTileKernel {
    if (dtype == DType::bf16) return pairs_kernel<count>(panels.group);
    return multiply_codes<Nf4Format, Nf4Decoder, DType::f32, count>;
  });
}

}  // namespace lathe::kernels::LATHE_ISA
