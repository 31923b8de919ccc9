// The rows of linear_cross_entropy and token_logprobs on device tensors (cuda, simt), checked by the caller.
#pragma once

#include <span>

#include "kernels/linear_cross_entropy/call.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::kernels {

enum class Direction { gather, scatter };

namespace device {

// One row for each of `tokens`, which index labels [tokens of the batch] (host memory) as well.
void cross_entropy_rows(const CrossEntropyCall<float>& chunk, std::span<const int64_t> tokens, const Tensor& labels,
                        Device device);
void token_logprobs(const Tensor& logprobs, const Tensor& logits, const Tensor& targets);
// Row i of packed is row tokens[i] of matrix.
void move_rows(const Tensor& matrix, const Tensor& packed, std::span<const int64_t> tokens, Direction direction);

}  // namespace device
}  // namespace lathe::kernels
