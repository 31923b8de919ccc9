// Inverted dropout (Srivastava et al. 2014): out = x / (1 − p) where a random number keeps the element, 0
// elsewhere.
//
// Element k of a token at position i of sample n is kept when the 32-bit word (k mod 4) of random_bits(seed,
// dropout, step · 2^16 + stream, n · 2^32 + i · 2^14 + k / 4) is at least p · 2^32: the same in any batch,
// packing or micro-batch, and computed again in the backward instead of being saved.
#pragma once

#include "core/tensor.h"

namespace lathe::kernels {

struct DropoutParams {
  float probability = 0.0f;  // in [0, 1)
  uint64_t seed = 0;
  uint32_t step = 0;    // of the optimiser
  uint16_t stream = 0;  // unique for each place in the model that drops
  // In the memory of x's device: the step is what stands there when the work is done, for steps that are replayed.
  const uint32_t* stored_step = nullptr;
};

// x, out [T, K], rows contiguous, one dtype (f32 | bf16 | f16; f64 on the cpu), K ≤ 65536; out may be x. On the cpu:
// cu_seqlens i32 [S + 1] with sequences of at most 2^18 tokens, sample_numbers i32 [S] in [0, 2^16). The product is
// rounded once. The backward is the same function, applied to the gradient.
void dropout(const Tensor& out, const Tensor& x, const Tensor& cu_seqlens, const Tensor& sample_numbers,
             const DropoutParams& params);

}  // namespace lathe::kernels
