// The CUDA bodies of sampling.h. Pointers are device memory.
//
// Settings travel as kernel arguments (at most 4 KiB), so that nothing is copied and nothing waited for; or they are
// stored, for a captured graph, which would keep arguments as they were.
#pragma once

#include <cstdint>

#include "core/device.h"

namespace lathe::kernels {

struct SampledRow {
  uint64_t draw;              // u in units of 2^-64
  uint64_t least_weight;      // of min-p, in units of 2^-40; 1 at least
  float inverse_temperature;  // 0: greedy
  float top_p;                // 1: off
  int32_t top_k;              // 0: off
};

// A row is read in parts, by a block each: 1024 logits or a 32nd of the row.
inline constexpr int sample_parts_most = 32;
constexpr int sample_parts(int64_t columns) {
  const int64_t parts = (columns + 1023) / 1024;
  return parts < sample_parts_most ? static_cast<int>(parts) : sample_parts_most;
}

// Logits by their distance from the largest: 255 the nearest.
inline constexpr int sample_buckets = 256;

// What the kernels of one draw leave each other of a row, in device memory.
struct SampleState {
  unsigned long long best[sample_parts_most];  // of a part: the largest logit and, of equals, its first place
  unsigned long long sums[sample_parts_most];  // of a part: the weights of what is kept
  unsigned long long weights[sample_buckets];
  uint32_t counts[sample_buckets];
  uint32_t has_nan[sample_parts_most];
  int64_t nucleus_last;
  uint32_t least_key;                     // top-k keeps keys from this one on
  uint32_t nucleus_key;                   // top-p keeps larger keys, and this one up to nucleus_last
  float largest[256], exponentials[256];  // of the threads of linear_cross_entropy/row_statistics.cuh
};

inline constexpr int sampled_rows_per_launch = 64;
struct SampleCuda {
  const float* logits;
  int64_t stride, columns;
  int32_t* tokens;      // or a BrokenLogits
  float* logprobs;      // of the tokens drawn, as token_logprobs has them; null: not wanted
  SampleState* states;  // [rows]
  int64_t rows;
  bool filters;              // some row may have top-k or top-p
  const SampledRow* stored;  // [rows]; null: they are sent
  SampledRow settings[sampled_rows_per_launch];
};

struct SeenToken {
  int32_t token, count;
};
inline constexpr int penalties_per_launch = 384;
struct PenalisedCuda {
  float* logits;  // of the row
  float* before;  // what the logits were: written when penalising, where not null; read when restoring
  bool restore;
  float repetition, presence, frequency;
  int32_t count;
  SeenToken seen[penalties_per_launch];  // each token once
};

template <DeviceKind>
void sample_rows(const SampleCuda& args);
template <DeviceKind>
void penalise_row(const PenalisedCuda& args);

}  // namespace lathe::kernels
