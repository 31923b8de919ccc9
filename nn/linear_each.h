// Linears that read one x: in one pass over it where nothing is recorded, with one product for all of their A factors
// where something is (nn/joined_lora.h).
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "autograd/ops/linear_each.h"
#include "nn/linear.h"

namespace lathe::nn {

// Whether these rows have the base weight alone and nothing is recorded.
bool is_alone(const Linear& linear, const BatchRows& rows);

// The adapters of these rows for a product that is not recorded; none where it is, and where one of them wants
// linear(): with DoRA, dropout, for all rows of the batch, or of a dtype without narrow panels.
std::optional<std::vector<autograd::UnrecordedLora>> unrecorded_lora(const Linear& linear, const BatchRows& rows);

// linear(x, rows) of each.
std::vector<autograd::Variable> multiply_each(const std::vector<Linear>& linears, const autograd::Variable& x,
                                              const BatchRows& rows);
// The same, recorded in this order: a backward goes the other way round.
std::vector<autograd::Variable> multiply_in_turn(std::span<const Linear* const> linears, const autograd::Variable& x,
                                                 const BatchRows& rows);

}  // namespace lathe::nn
