// What the CPU bodies of sampling read and write: one row of logits.
#pragma once

#include <cstdint>

#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct LogitScan {
  const float* logits;
  int64_t count;
  float* largest;  // the largest logit
  int64_t* first;  // where it stands first; −1 when there is none
  uint8_t* has_nan;
};

// log_sum = log Σ exp(logits − largest): the normaliser of token_logprobs.
struct LogitNormaliser {
  const float* logits;
  int64_t count;
  float largest;
  float* log_sum;
};

// weights[i] = exp((logits[i] − largest) · inverse_temperature) in units of 2^-40, rounded down; sums[b], where asked
// for, over each block of sampling_block elements. Either output may be null.
inline constexpr int64_t sampling_block = 1024;
struct SamplingWeights {
  const float* logits;
  int64_t count;
  float largest, inverse_temperature;
  uint64_t* weights;
  uint64_t* sums;
};

template <Isa>
void scan_logits(LogitScan args);
template <Isa>
void normalise_logits(LogitNormaliser args);
template <Isa>
void sampling_weights(SamplingWeights args);

}  // namespace lathe::kernels
