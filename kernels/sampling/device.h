// sampling.h on device tensors (cuda, simt), checked by the caller.
#pragma once

#include "kernels/sampling/sampling.h"

namespace lathe::kernels::device {

void sample(const Tensor& tokens, const Tensor& logprobs, const Tensor& logits, std::span<const SamplingRow> rows);

}  // namespace lathe::kernels::device
