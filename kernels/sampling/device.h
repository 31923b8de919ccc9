// sampling.h on device tensors (cuda, simt), checked by the caller.
#pragma once

#include "kernels/sampling/sampling.h"

namespace lathe::kernels::device {

Tensor sampling_settings(std::span<const SamplingRow> rows);
void sample_with(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, const Tensor& settings);
void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows);

}  // namespace lathe::kernels::device
