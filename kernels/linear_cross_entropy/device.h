// The rows of linear_cross_entropy and token_logprobs on device tensors (cuda, simt), checked by the caller.
#pragma once

#include <span>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::kernels {

enum class Direction { gather, scatter };

namespace device {

// Losses of the rows of logits, whose tokens are `tokens`; the logits become their own gradient where one is asked for.
void cross_entropy_rows(const CrossEntropyOutputs& outputs, const Tensor& logits, std::span<const int64_t> tokens,
                        const Tensor& labels, DType gradient_dtype, double scale, float softcap);
void token_logprobs(const Tensor& logprobs, const Tensor& logits, const Tensor& targets);
// Row i of packed is row tokens[i] of matrix.
void move_rows(const Tensor& matrix, const Tensor& packed, std::span<const int64_t> tokens, Direction direction);

}  // namespace device
}  // namespace lathe::kernels
