// The cases of kernels/matmul: odd extents, tails of every kind, packed and dense weights, every term.
#pragma once

#include <vector>

#include "tests/support/operation_cases.h"

namespace lathe::testing {

std::vector<Operation> matmul_operations();

}  // namespace lathe::testing
