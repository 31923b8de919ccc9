// The plain bodies in double: the specification of sampling.h.
#pragma once

#include "kernels/sampling/sampling.h"

namespace lathe::kernels::reference {

// logits f64; arguments as in sampling.h. What is not finite is left to the caller.
void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows);

// The ids that the filters keep of one row (after penalties), ascending, by sorting all of it. For tests.
std::vector<int32_t> kept_tokens(std::span<const double> logits, const SamplingParams& params);

}  // namespace lathe::kernels::reference
