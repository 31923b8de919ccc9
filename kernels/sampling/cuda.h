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

inline constexpr int sampled_rows_per_launch = 64;
struct SampleCuda {
  const float* logits;
  int64_t stride, columns;
  int32_t* tokens;  // or a BrokenLogits
  int64_t rows;
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
