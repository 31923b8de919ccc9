// out[t, :] = weight[ids[t], :] (kernels/embedding/embedding.h).
#pragma once

#include "autograd/ops/linear.h"

namespace lathe::autograd {

// ids i32 [T]; weight [V, H] → [T, H] of the weight's dtype. A trainable weight's gradient is scattered.
Variable embedding(const LinearWeight& weight, const Tensor& ids, const SequenceLayout& layout);

}  // namespace lathe::autograd
