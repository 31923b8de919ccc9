// How what a block has computed goes back to the hidden states.
#pragma once

#include "nn/linear.h"

namespace lathe::nn {

struct Residual {
  autograd::Variable norm;  // of what is added; undefined where there is none
  float eps = 0;            // of the norm
  double multiplier = 1;    // of what is added

  // x + multiplier · norm(last(computed)), x [T, hidden].
  autograd::Variable operator()(const autograd::Variable& x, const Linear& last, const autograd::Variable& computed,
                                const BatchRows& rows) const;
};

}  // namespace lathe::nn
