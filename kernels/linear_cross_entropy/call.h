// What every body of cross_entropy_rows is told of a chunk's rows, however it is told which rows they are.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace lathe::kernels {

// Row r has its logits at logits + r · stride and belongs to a token, which indexes loss, entropy and correct (each may
// be null). When gradient is set the logits are overwritten by the token's scale · ∂loss/∂logit + entropy scale ·
// ∂entropy/∂logit in gradient_dtype, from the row's first byte on; otherwise only softcap (0: none) and temperature
// change them.
template <class Real>
struct CrossEntropyCall {
  Real* logits;
  int64_t stride, columns;
  Real* loss;
  Real* entropy;
  Real* log_sum_sq_probs;
  uint8_t* correct;
  bool gradient;
  DType gradient_dtype;
  Real scale;
  const Real* token_scales;    // null: 1 for every token
  const Real* entropy_scales;  // null: 0 for every token
  float softcap;
  Real inverse_temperature;

  Real scale_of(int64_t token) const { return token_scales != nullptr ? scale * token_scales[token] : scale; }
};

}  // namespace lathe::kernels
