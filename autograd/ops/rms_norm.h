// out = weight · x / √(mean(x²) + eps) (kernels/rms_norm/rms_norm.h). The backward needs x and one rstd for
// each row; the normed output itself is recomputed for the linears that save it, since it costs one pass over
// x.
#pragma once

#include "autograd/sequence_layout.h"
#include "autograd/variable.h"

namespace lathe::autograd {

// x [T, H], weight [H] of the same dtype, trainable or not.
Variable rms_norm(const Variable& x, const Variable& weight, float eps, const SequenceLayout& layout);

// sum = x + residual, out = norm(sum), in one pass; both take gradients.
struct NormedSum {
  Variable out, sum;
};
NormedSum rms_norm_residual(const Variable& x, const Variable& residual, const Variable& weight, float eps,
                            const SequenceLayout& layout);

}  // namespace lathe::autograd
