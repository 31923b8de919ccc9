// Linears that read one x: in one pass over it where nothing is recorded and no adapter joins.
#pragma once

#include <vector>

#include "nn/linear.h"

namespace lathe::nn {

// Whether these rows have the base weight alone and nothing is recorded.
bool is_alone(const Linear& linear, const BatchRows& rows);

// linear(x, rows) of each.
std::vector<autograd::Variable> multiply_each(const std::vector<Linear>& linears, const autograd::Variable& x,
                                              const BatchRows& rows);

}  // namespace lathe::nn
