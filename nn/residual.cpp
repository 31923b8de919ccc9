#include "nn/residual.h"

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/rms_norm.h"

namespace lathe::nn {

using autograd::Variable;

Variable Residual::operator()(const Variable& x, const Linear& last, const Variable& computed,
                              const BatchRows& rows) const {
  if (!norm.defined() && multiplier == 1) return last(computed, rows, x);
  Variable added = last(computed, rows);
  if (norm.defined()) added = autograd::rms_norm(added, norm, eps, rows.layout);
  return autograd::add(x, added, multiplier);
}

}  // namespace lathe::nn
