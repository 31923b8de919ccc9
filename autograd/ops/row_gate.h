// residual + σ(gate) · x with a gate for each row (kernels/row_gate/row_gate.h). Saves gate and x.
#pragma once

#include "autograd/variable.h"

namespace lathe::autograd {

// gate [T, 1], x and residual [T, H] → [T, H].
Variable row_gate(const Variable& gate, const Variable& x, const Variable& residual);

}  // namespace lathe::autograd
