#include <algorithm>
#include <cmath>

#include "kernels/linear_cross_entropy/rows.h"

namespace lathe::kernels::reference {
namespace {

struct Normaliser {
  double largest, log_sum;
};

Normaliser normaliser_of(const double* z, int64_t n) {
  const double largest = *std::max_element(z, z + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(z[i] - largest);
  return {largest, std::log(sum)};
}

}  // namespace

void cross_entropy_rows(const CrossEntropyRows<double>& rows) {
  for (int64_t row = rows.row_begin; row < rows.row_end; ++row) {
    double* z = rows.logits + row * rows.stride;
    const int64_t token = rows.tokens[row], label = rows.labels[token];
    const double softcap = static_cast<double>(rows.softcap);
    if (softcap > 0) {
      for (int64_t i = 0; i < rows.columns; ++i) z[i] = softcap * std::tanh(z[i] / softcap);
    }
    for (int64_t i = 0; i < rows.columns; ++i) z[i] *= rows.inverse_temperature;
    const auto [largest, log_sum] = normaliser_of(z, rows.columns);
    if (rows.loss != nullptr) rows.loss[token] = -((z[label] - largest) - log_sum);
    double entropy = 0, squares = 0;
    for (int64_t i = 0; i < rows.columns; ++i) {
      const double logprob = (z[i] - largest) - log_sum;
      if (std::exp(logprob) > 0) entropy -= std::exp(logprob) * logprob;
      squares += std::exp(2 * (z[i] - largest));
    }
    if (rows.entropy != nullptr) rows.entropy[token] = entropy;
    if (rows.log_sum_sq_probs != nullptr) rows.log_sum_sq_probs[token] = std::log(squares) - 2 * log_sum;
    if (rows.correct != nullptr) rows.correct[token] = std::max_element(z, z + rows.columns) - z == label;
    if (!rows.gradient) continue;
    const double scale = rows.scale_of(token) * rows.inverse_temperature;
    const double entropy_scale =
        rows.entropy_scales != nullptr ? rows.entropy_scales[token] * rows.inverse_temperature : 0;
    const double limit = softcap * rows.inverse_temperature;
    for (int64_t i = 0; i < rows.columns; ++i) {
      const double logprob = (z[i] - largest) - log_sum, softmax = std::exp(logprob);
      const double of_entropy = softmax > 0 ? -softmax * (logprob + entropy) : 0;
      const double slope = softcap > 0 ? 1.0 - z[i] / limit * (z[i] / limit) : 1.0;
      z[i] = (scale * (softmax - (i == label ? 1.0 : 0.0)) + entropy_scale * of_entropy) * slope;
    }
  }
}

void token_logprob_rows(const TokenLogprobRows<double>& rows) {
  for (int64_t row = rows.row_begin; row < rows.row_end; ++row) {
    const double* z = rows.logits + row * rows.stride;
    const auto [largest, log_sum] = normaliser_of(z, rows.columns);
    rows.logprobs[row] = (z[rows.targets[row]] - largest) - log_sum;
  }
}

}  // namespace lathe::kernels::reference
