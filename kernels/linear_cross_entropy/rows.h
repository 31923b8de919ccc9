// What the bodies of linear_cross_entropy and token_logprobs read and write: rows of logits.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/simd/dispatch.h"

namespace lathe::kernels {

// Rows [row_begin, row_end) of one chunk. Row r has its logits at logits + r · stride and belongs to token tokens[r], which
// indexes labels, loss, entropy and correct (each of the last three may be null). When gradient is set the logits are
// overwritten by scale · ∂loss/∂logit in gradient_dtype, from the row's first byte on; otherwise only softcap changes them.
template <class Real>
struct CrossEntropyRows {
  Real* logits;
  int64_t stride, columns;
  const int64_t* tokens;
  const int32_t* labels;
  Real* loss;
  Real* entropy;
  uint8_t* correct;
  bool gradient;
  DType gradient_dtype;
  Real scale;
  float softcap;
  int64_t row_begin, row_end;
};

template <class Real>
struct TokenLogprobRows {
  const Real* logits;
  int64_t stride, columns;
  const int32_t* targets;
  Real* logprobs;
  int64_t row_begin, row_end;
};

namespace reference {
void cross_entropy_rows(const CrossEntropyRows<double>& rows);
void token_logprob_rows(const TokenLogprobRows<double>& rows);
}  // namespace reference

}  // namespace lathe::kernels

LATHE_CPU_BODY(cross_entropy_rows, CrossEntropyRows<float>)
LATHE_CPU_BODY(token_logprob_rows, TokenLogprobRows<float>)
