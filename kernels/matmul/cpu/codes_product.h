// The loops over codes, for a format's decoder (decode.h). For the few rows of a decode step the decoded words are used
// in registers; for more rows they fill a panel that all tiles read. Both ways make the same words and add them in the
// same order. For kernels/matmul's cpu sources only.
#pragma once

#include "kernels/matmul/cpu/codes.h"
#include "kernels/matmul/cpu/decode.h"

namespace lathe::kernels::LATHE_ISA {

// The codes of a chunk are in registers where there are enough of them: then loops are unrolled, so that constants
// choose among them.
#if defined(LATHE_AVX512)
#define LATHE_UNROLL_CHUNK _Pragma("GCC unroll 4")
#else
#define LATHE_UNROLL_CHUNK
#endif

struct CodeGroup {
  const uint8_t* codes;
  const float* scales;
};
template <class Format>
LATHE_INLINE CodeGroup group_at(const WeightPanels& panels, int64_t panel, int64_t group) {
  const uint8_t* bytes = static_cast<const uint8_t*>(panels.data) + panel * panels.panel_bytes +
                         group * gemm::group_bytes<Format>(panels.group);
  return {bytes + gemm::scale_bytes, reinterpret_cast<const float*>(bytes)};
}

// Prefetches codes in the order of memory, for each group as much as a group has. Where one pass reads a k block, it
// prefetches the groups that follow soon; where several do, each prefetches its part of the next k block.
template <class Format>
class GroupPrefetch {
 public:
  LATHE_INLINE GroupPrefetch(const CodeRange& range, int64_t first_group, int64_t last_group, int64_t pass, int passes)
      : bytes_(gemm::group_bytes<Format>(range.panels.group) / passes),
        at_(passes == 1 ? group_at<Format>(range.panels, range.panel, first_group + 8).codes
                        : group_at<Format>(range.panels, range.panel, last_group).codes +
                              pass * (last_group - first_group) * bytes_) {}
  LATHE_INLINE void next_group() {
    for (int64_t byte = 0; byte < bytes_; byte += 64) __builtin_prefetch(at_ + byte);
    at_ += bytes_;
  }

 private:
  int64_t bytes_;
  const uint8_t* at_;
};

// Many rows: decodes chunks [first, last) of a group, of half a panel.
template <class Decoder, DType dtype>
struct ChunkDecoder {
  Decoder decoder{};
  LATHE_INLINE void decode(const CodeGroup& group, int64_t group_k, int64_t first, int64_t last, int half,
                           uint32_t* words) const {
    const RowScales<dtype> scales(group.scales + half * half_rows);
    for (int64_t at = first; at < last; ++at) {
      const typename Decoder::Chunk chunk = decoder.load_chunk(group.codes, group_k, at, half);
      LATHE_UNROLL_CHUNK
      for (int segment = 0; segment < segments; ++segment) LATHE_UNROLL_CHUNK
      for (int pair = 0; pair < segment_pairs; ++pair) {
        DecodedWords<dtype> decoded;
        decoder.decode(chunk, segment, pair, scales, decoded);
#pragma GCC unroll 2
        for (auto& step : decoded.steps) {
#pragma GCC unroll 4
          for (int j = 0; j < half_vectors; ++j) store_words(words + j * lanes, step[j]);
          words += gemm::panel_width;
        }
      }
    }
  }
};

// decode_panel of codes.h, by ChunkDecoder or one that is called as it is.
template <class Format, class Decoder>
void decode_panel_by(const WeightPanels& panels, DType dtype, int64_t panel, int64_t first_k, int64_t last_k,
                     uint32_t* words) {
  const Decoder decoder{};
  for (int64_t k = first_k; k < last_k;) {
    const int64_t begin = k % panels.group;
    const int64_t stop = k - begin + panels.group < last_k ? panels.group : begin + last_k - k;
    const CodeGroup group = group_at<Format>(panels, panel, k / panels.group);
    for (int half = 0; half < gemm::panel_width / half_rows; ++half)
      decoder.decode(group, panels.group, begin / gemm::decode_chunk, stop / gemm::decode_chunk, half,
                     words + half * half_rows);
    words += gemm::k_steps(stop - begin, dtype) * gemm::panel_width;
    k += stop - begin;
  }
}

// Few rows: codes are decoded in registers.

template <int rows, DType dtype>
struct StepFor;
template <int rows>
struct StepFor<rows, DType::f32> {
  using Step = F32Step<rows, half_vectors>;
};
template <int rows>
struct StepFor<rows, DType::bf16> {
  using Step = PairStep<rows, half_vectors>;
};

// Adds the chains of a k block to a tile's totals, the last of them continued by `second`.
template <class Step, int chains, int rows, int vectors>
LATHE_INLINE void finish_chains(Vec (&sums)[chains][rows][vectors], const SecondRange& second, float* accumulators,
                                bool begins, int64_t column) {
  constexpr int64_t least_steps = chains * gemm::chain_steps;  // codes come in groups, which have some for each chain
  multiply_second<Step>(sums[chains - 1], least_steps, second, column);
#pragma GCC unroll 4
  for (int chain = 0; chain < chains; ++chain) add_chain(accumulators + column, sums[chain], begins && chain == 0);
}

// Halves of a panel side by side: what the registers hold besides scales, codes and a table.
constexpr int halves_at_once(int rows) { return lanes == 16 ? 2 : lanes == 8 && rows == 1 ? 2 : 1; }

template <class Format, class Decoder, DType dtype, int rows>
void multiply_codes(const CodeRange& first, const SecondRange& second, float* accumulators, bool begins,
                    int64_t columns) {
  using Step = typename StepFor<rows, dtype>::Step;
  constexpr int halves = halves_at_once(rows);
  constexpr int64_t k_per_step = dtype == DType::bf16 ? 2 : 1;
  constexpr int steps = DecodedWords<dtype>::count;
  static_assert(Step::chains == 1 || (segments == Step::chains && segment_pairs == gemm::chain_steps));
  const Decoder decoder{};
  const WeightPanels& panels = first.panels;
  const int64_t first_group = first.first_step * k_per_step / panels.group,
                last_group = first.last_step * k_per_step / panels.group;
  for (int64_t column = 0; column < columns; column += halves * half_rows) {
    Vec sums[halves][Step::chains][rows][half_vectors];
#pragma GCC unroll 2
    for (auto& half : sums) clear(half);
    const uint32_t* left = first.left;
    constexpr int columns_at_once = halves * half_rows;
    GroupPrefetch<Format> prefetch(first, first_group, last_group, column / columns_at_once,
                                   gemm::panel_width / columns_at_once);
    for (int64_t g = first_group; g < last_group; ++g) {
      const CodeGroup group = group_at<Format>(panels, first.panel, g);
      if constexpr (Decoder::prefetches) prefetch.next_group();
      RowScales<dtype> scales[halves];
#pragma GCC unroll 2
      for (int h = 0; h < halves; ++h) scales[h] = RowScales<dtype>(group.scales + column + h * half_rows);
      for (int64_t at = 0; at < panels.group / gemm::decode_chunk; ++at) {
        typename Decoder::Chunk chunks[halves];
#pragma GCC unroll 2
        for (int h = 0; h < halves; ++h)
          chunks[h] = decoder.load_chunk(group.codes, panels.group, at, column / half_rows + h);
        const auto multiply_segment = [&](int segment) __attribute__((always_inline)) {
          const int chain = Step::chains == 1 ? 0 : segment;
#pragma GCC unroll 4
          for (int pair = 0; pair < segment_pairs; ++pair, left += steps * rows * Step::left_words) {
#pragma GCC unroll 2
            for (int h = 0; h < halves; ++h) {
              DecodedWords<dtype> words;
              decoder.decode(chunks[h], segment, pair, scales[h], words);
#pragma GCC unroll 2
              for (int step = 0; step < steps; ++step)
                Step::multiply(sums[h][chain], left + step * rows * Step::left_words, words.steps[step]);
            }
          }
        };
        if constexpr (Step::chains > 1 && rows == 1) {  // sums of all chains in registers
#pragma GCC unroll 4
          for (int segment = 0; segment < segments; ++segment) multiply_segment(segment);
        } else {
#pragma GCC unroll 1
          for (int segment = 0; segment < segments; ++segment) multiply_segment(segment);
        }
      }
    }
#pragma GCC unroll 2
    for (int h = 0; h < halves; ++h) finish_chains<Step>(sums[h], second, accumulators, begins, column + h * half_rows);
  }
}

// kernel.operator()<rows>(), for the rows that codes are decoded in registers for.
template <class Kernel>
LATHE_INLINE CodeTileKernel with_rows(int64_t rows, const Kernel& kernel) {
  static_assert(gemm::most_rows_decoded_in_registers == 4);
  switch (rows) {
    case 1: return kernel.template operator()<1>();
    case 2: return kernel.template operator()<2>();
    case 3: return kernel.template operator()<3>();
    case 4: return kernel.template operator()<4>();
  }
  __builtin_unreachable();
}

}  // namespace lathe::kernels::LATHE_ISA
