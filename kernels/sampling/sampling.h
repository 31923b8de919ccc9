// The next token of each row from its logits. Order of the filters as in vLLM and transformers: penalties,
// temperature, top-k, top-p, min-p; then one draw from Philox at (seed, position), whatever else is in the batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace lathe::kernels {

inline constexpr float greedy_below = 1e-5f;

struct SamplingParams {
  float temperature = 1.0f;         // below greedy_below: the first maximum
  int32_t top_k = 0;                // 0 (or −1): off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // over prompt and output, as transformers
  float presence_penalty = 0.0f;    // over output only
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
};
// ConfigError with the name of the first parameter that is out of its range.
void check_sampling(const SamplingParams& params);

struct SamplingRow {
  SamplingParams params;
  uint64_t position = 0;                   // of the token being drawn
  std::span<const int32_t> prompt_tokens;  // read only where a penalty is set
  std::span<const int32_t> output_tokens;
};

// logits f32 (f64) [B, V], rows contiguous, are overwritten where penalties apply. tokens i32 [B]; logprobs [B] of
// logits' dtype is the log-probability of the token under the model's own distribution, before penalties, temperature
// and filters: the bits of token_logprobs; may be undefined. −inf bans a token. Every row's parameters go through
// check_sampling(). V < 2^24.
// Of a row (of f32) that holds NaN or +inf, or no finite logit, the token is a BrokenLogits and the log-probability
// NaN; the other rows are drawn as ever. On the CPU `broken` says whether that is refused, with a NumericError that has
// the row's number. On a device nothing is waited for: expect_sampled() on the tokens, once they have been copied to
// the CPU, throws the error.
//
//   penalties    of every token seen: logit / repetition if it is positive, · repetition if not; then of a token that
//                occurs c > 0 times in the output: − (frequency · c + presence)
//   temperature  z = (logit − max) · (1 / temperature); a token's weight is exp(z), rounded down to a multiple of 2^-40
//   top-k        keeps the tokens whose logit is at least the k-th largest (ties stay)
//   top-p        keeps, from the largest logit on (of equals the lower id first), until their share of what top-k left
//                reaches top_p
//   min-p        keeps the tokens whose weight is at least min_p times the largest
//   draw         u · Σ weights, u from 53 bits of random_bits(seed, sampling, 0, position); the token is the first, by
//                id, at which the running sum of the kept weights exceeds it
//
// Weights come from IEEE multiplications and additions alone and are summed as integers, which have no order: the same
// logits give the same token in every instruction set and on every device.
enum class BrokenRows { refused, marked };
void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows,
            BrokenRows broken = BrokenRows::refused);

// A captured graph can draw on a device for rows without penalties: their settings lie there, i32 [B, 8] at a multiple
// of 8 bytes, where the caller copies sampling_settings() before each run. The same tokens and log-probabilities as
// sample()'s.
bool has_penalties(const SamplingParams& params);
inline constexpr int64_t sampling_setting_words = 8;
Tensor sampling_settings(std::span<const SamplingRow> rows);  // on the CPU
void sample_with(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, const Tensor& settings);

enum class BrokenLogits : int32_t { nan = -1, infinite = -2, none_finite = -3 };
void expect_sampled(std::span<const int32_t> tokens);
const char* reason_of(BrokenLogits why);  // "holds NaN", …

// What the filters keep of one row of logits (after penalties), by id. What sample() draws from; for tests and
// inspection.
struct Kept {
  int32_t token;
  uint64_t weight;  // in units of 2^-40
};
std::vector<Kept> kept_tokens(std::span<const float> logits, const SamplingParams& params);

}  // namespace lathe::kernels
