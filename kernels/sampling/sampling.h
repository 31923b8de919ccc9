// The next token of each row from its logits. Order of the filters as in vLLM and transformers: penalties,
// temperature, top-k, top-p, min-p; then one draw from Philox at (seed, position), whatever else is in the batch.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.h"

namespace lathe::kernels {

struct SamplingParams {
  float temperature = 1.0f;  // 0 is greedy: the first maximum
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and output, as transformers
  float presence_penalty = 0.0f;    // over output only
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
};

struct SamplingRow {
  SamplingParams params;
  uint64_t position = 0;                    // of the token being drawn
  std::span<const int32_t> prompt_tokens;   // read only where a penalty is set
  std::span<const int32_t> output_tokens;
};

// logits f32 [B, V] are overwritten where penalties apply. tokens i32 [B]; logprobs f32 [B] is the log-probability of the
// token under the untempered, unfiltered distribution; may be undefined. A row with no finite logit throws NumericError.
void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows);

}  // namespace lathe::kernels
