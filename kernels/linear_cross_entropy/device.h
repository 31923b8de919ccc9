// The rows of linear_cross_entropy and token_logprobs on device tensors (cuda, simt), checked by the caller.
#pragma once

#include <span>

#include "kernels/linear_cross_entropy/call.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace lathe::kernels {

enum class Direction { gather, scatter };

namespace device {

// logits f32 [T, V] = hidden · weightᵀ, and the statistics f32 [T, ⌈V / 64⌉, 2] of each row's groups of 64 columns as
// linear_cross_entropy/row_statistics.cuh has them, of logits over the temperature. False, and nothing done, where no
// product makes them on its way.
bool logits_with_statistics(const Tensor& logits, const Tensor& statistics, const Tensor& hidden, const Weight& weight,
                            float inverse_temperature);
// The tokens that a chunk's rows belong to.
struct TokensOfRows {
  int64_t count() const { return stored.defined() ? stored.numel() : std::ssize(listed); }
  std::span<const int64_t> listed;
  Tensor stored = {};  // instead, i32 on the device
};
// A row for each of them. Listed tokens index labels [tokens of the batch] (host memory) as well; stored ones have
// their labels [rows] beside them. Where the statistics of their logits are there they need not be made; else they are
// undefined.
void cross_entropy_rows(const CrossEntropyCall<float>& chunk, const Tensor& statistics, const TokensOfRows& tokens,
                        const Tensor& labels, Device device);
void token_logprobs(const Tensor& logprobs, const Tensor& logits, const Tensor& targets);
// Row i of packed is row tokens[i] of matrix.
void move_rows(const Tensor& matrix, const Tensor& packed, const TokensOfRows& tokens, Direction direction);

}  // namespace device
}  // namespace lathe::kernels
