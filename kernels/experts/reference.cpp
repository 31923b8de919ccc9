#include "kernels/experts/reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace lathe::kernels::reference {
namespace {

double& at(const Tensor& matrix, int64_t row, int64_t column) {
  return matrix.data<double>()[row * matrix.stride(0) + column];
}
int32_t& index_at(const Tensor& matrix, int64_t row, int64_t column) {
  return matrix.data<int32_t>()[row * matrix.stride(0) + column];
}

std::vector<double> softmax(const Tensor& logits, int64_t row) {
  std::vector<double> p(static_cast<size_t>(logits.dim(1)));
  for (size_t e = 0; e < p.size(); ++e) p[e] = at(logits, row, static_cast<int64_t>(e));
  const double largest = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& value : p) sum += value = std::exp(value - largest);
  for (double& value : p) value /= sum;
  return p;
}

std::vector<double> sigmoids(const Tensor& logits, int64_t row) {
  std::vector<double> p(static_cast<size_t>(logits.dim(1)));
  for (size_t e = 0; e < p.size(); ++e) p[e] = 1 / (1 + std::exp(-at(logits, row, static_cast<int64_t>(e))));
  return p;
}

bool is_divided(const ExpertRule& rule) {
  return rule.weights == ExpertWeights::normalised || rule.weights == ExpertWeights::normalised_sigmoids;
}

double weight_at(const Tensor& weights, int64_t row, int64_t i) { return weights.defined() ? at(weights, row, i) : 1; }

}  // namespace

void choose_experts(const Tensor& weights, const Tensor& chosen, const Tensor& logits, const ExpertRule& rule) {
  const int64_t k = weights.dim(1);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const std::vector<double> p = rule.has_sigmoids() ? sigmoids(logits, t) : softmax(logits, t);
    // By logits where nothing is added to p: they differ where p has no more digits.
    const auto rank = [&](int32_t e) {
      if (!rule.has_sigmoids()) return at(logits, t, e);
      return p[static_cast<size_t>(e)] + (rule.bias.defined() ? rule.bias.data<double>()[e] : 0.0);
    };
    std::vector<int32_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += p[static_cast<size_t>(order[static_cast<size_t>(i)])];
    if (rule.weights == ExpertWeights::normalised_sigmoids) sum += static_cast<double>(sigmoid_sum_offset);
    if (!is_divided(rule)) sum = 1;
    for (int64_t i = 0; i < k; ++i) {
      index_at(chosen, t, i) = order[static_cast<size_t>(i)];
      at(weights, t, i) = rule.scale * p[static_cast<size_t>(order[static_cast<size_t>(i)])] / sum;
    }
  }
}

void choose_experts_backward(const Tensor& grad_logits, const Tensor& grad_weights, const Tensor& logits,
                             const Tensor& weights, const Tensor& chosen, const ExpertRule& rule) {
  const int64_t k = weights.dim(1);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    double mean = 0;
    for (int64_t i = 0; i < k; ++i) mean += at(grad_weights, t, i) * at(weights, t, i);
    mean = rule.weights == ExpertWeights::sigmoids ? 0 : mean / rule.scale;
    const std::vector<double> p = rule.has_sigmoids() ? sigmoids(logits, t) : softmax(logits, t);
    for (int64_t e = 0; e < logits.dim(1); ++e)
      at(grad_logits, t, e) = rule.weights == ExpertWeights::probabilities ? -p[static_cast<size_t>(e)] * mean : 0.0;
    for (int64_t i = 0; i < k; ++i) {
      const int32_t expert = index_at(chosen, t, i);
      const double g = at(grad_weights, t, i), weight = at(weights, t, i);
      at(grad_logits, t, expert) =
          weight * (g - mean) * (rule.has_sigmoids() ? 1 - p[static_cast<size_t>(expert)] : 1.0);
    }
  }
}

void combine_experts(const Tensor& out, const Tensor& rows, const Tensor& slots, const Tensor& weights,
                     const Tensor& residual) {
  for (int64_t t = 0; t < out.dim(0); ++t)
    for (int64_t h = 0; h < out.dim(1); ++h) {
      double sum = 0;
      for (int64_t i = 0; i < slots.dim(1); ++i) sum += weight_at(weights, t, i) * at(rows, index_at(slots, t, i), h);
      at(out, t, h) = residual.defined() ? at(residual, t, h) + sum : sum;
    }
}

void combine_experts_backward(const Tensor& grad_rows, const Tensor& grad_weights, const Tensor& grad_out,
                              const Tensor& rows, const Tensor& slots, const Tensor& weights) {
  for (int64_t t = 0; t < grad_out.dim(0); ++t)
    for (int64_t i = 0; i < slots.dim(1); ++i) {
      const int64_t slot = index_at(slots, t, i);
      double sum = 0;
      for (int64_t h = 0; h < grad_out.dim(1); ++h) {
        sum += at(grad_out, t, h) * at(rows, slot, h);
        if (grad_rows.defined()) at(grad_rows, slot, h) = weight_at(weights, t, i) * at(grad_out, t, h);
      }
      if (grad_weights.defined()) at(grad_weights, t, i) = sum;
    }
}

}  // namespace lathe::kernels::reference
