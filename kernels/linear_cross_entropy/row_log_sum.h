// log Σ exp(z − max z) of a row of logits: one routine for the loss, for token_logprobs and for sampling, so that their
// log-probabilities are the same bits. For cpu*.cpp only.
#pragma once

#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {

// The largest logit. A NaN may be passed over here; it shows in the sum.
LATHE_INLINE float row_max(const float* z, int64_t n) {
  constexpr int parts = row_partials / lanes;
  Vec part[parts];
  for (int p = 0; p < parts; ++p) part[p] = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + row_partials <= n; i += row_partials) {
    for (int p = 0; p < parts; ++p) part[p] = max(part[p], load(z + i + p * lanes));
  }
  for (int p = 1; p < parts; ++p) part[0] = max(part[0], part[p]);
  float largest = max_lanes(part[0]);
  for (; i < n; ++i) largest = z[i] > largest ? z[i] : largest;
  return largest;
}

// Lanes past the row's end are −inf, whose exponential is 0.
LATHE_INLINE Vec load_logits(const float* z, int count) {
  if (count == lanes) return load(z);
  return select(first_lanes(count), load_partial(z, count), splat(-__builtin_inff()));
}

// Σ exp(z − largest).
LATHE_INLINE float row_exp_sum(const float* z, int64_t n, float largest) {
  const Vec shift = splat(largest);
  return row_sum(n,
                 [&](Vec partial, int64_t i, int count) { return partial + exp(load_logits(z + i, count) - shift); });
}

LATHE_INLINE float log_of_sum(float sum) { return static_cast<float>(__builtin_log(static_cast<double>(sum))); }

// The logit is taken relative to the largest first, so that large logits cost no digits.
LATHE_INLINE float log_probability(float logit, float largest, float log_sum) { return (logit - largest) - log_sum; }

}  // namespace lathe::kernels::LATHE_ISA
