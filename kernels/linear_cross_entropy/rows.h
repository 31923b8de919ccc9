// What the bodies of linear_cross_entropy and token_logprobs read and write: rows of logits.
#pragma once

#include <cstdint>

#include "kernels/linear_cross_entropy/call.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// Rows [row_begin, row_end) of one chunk. Row r belongs to token tokens[r], which indexes labels as well.
template <class Real>
struct CrossEntropyRows : CrossEntropyCall<Real> {
  const int64_t* tokens;
  const int32_t* labels;
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

template <Isa>
void cross_entropy_rows(CrossEntropyRows<float> args);
template <Isa>
void token_logprob_rows(TokenLogprobRows<float> args);

}  // namespace lathe::kernels
