// The LoRA of linears that read one input: their A factors lie one below the other in memory, so that what they do with
// the input in forward and backward is one product (autograd/ops/joined_linears.h) and not one for each.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "nn/linear.h"

namespace lathe::nn {

// Moves the A factors of an adapter on these linears together, in their order. Nothing happens where that would gain
// nothing: with fewer than two of them, and where a term computes with more than A and B or has rows that lie at no
// multiples of 16 bytes.
void lay_together(std::span<Linear* const> linears, std::string_view adapter);

// linear(x, rows) of each, in this order, as one operation: where one adapter, laid together, has all rows and nothing
// else is asked for. That is one scaling, one probability of dropout, frozen weights and biases.
std::optional<std::vector<autograd::Variable>> multiply_joined(std::span<const Linear* const> linears,
                                                               const autograd::Variable& x, const BatchRows& rows);

}  // namespace lathe::nn
