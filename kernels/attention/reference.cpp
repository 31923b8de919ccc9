#include "kernels/attention/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lathe::kernels::reference {
namespace {

// x[token, head, ·] of a tensor [T, heads, D].
double* row(const Tensor& x, int64_t token, int64_t head) {
  return x.data<double>() + token * x.stride(0) + head * x.stride(1);
}

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void add_scaled(double* out, double scale, const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += scale * x[i];
}

int64_t first_key(int64_t position, const AttentionParams& params) {
  return params.window > 0 ? std::max<int64_t>(0, position + 1 - params.window) : 0;
}

double score_of(double product, const AttentionParams& params) {
  const double scaled = product * static_cast<double>(params.scale);
  if (!(params.softcap > 0)) return scaled;
  const double softcap = params.softcap;
  return softcap * std::tanh(scaled / softcap);
}

// d score / d scaled product.
double score_slope(double score, const AttentionParams& params) {
  if (!(params.softcap > 0)) return 1;
  const double t = score / static_cast<double>(params.softcap);
  return 1 - t * t;
}

void clear(const Tensor& x, int64_t token, int64_t head) { std::fill_n(row(x, token, head), x.dim(2), 0.0); }

}  // namespace

double attend_row(const double* q, int64_t position, int64_t head_dim, const AttentionParams& params,
                  FunctionRef<const double*(int64_t)> key, FunctionRef<const double*(int64_t)> value, double* scores,
                  double* out) {
  const int64_t first = first_key(position, params);
  double maximum = -std::numeric_limits<double>::infinity();
  for (int64_t j = first; j <= position; ++j) {
    scores[j] = score_of(dot(q, key(j), head_dim), params);
    maximum = std::max(maximum, scores[j]);
  }
  double sum = 0;
  for (int64_t j = first; j <= position; ++j) {
    scores[j] = std::exp(scores[j] - maximum);
    sum += scores[j];
  }
  std::fill_n(out, head_dim, 0.0);
  for (int64_t j = first; j <= position; ++j) add_scaled(out, scores[j], value(j), head_dim);
  for (int64_t d = 0; d < head_dim; ++d) out[d] /= sum;
  return maximum + std::log(sum);
}

void attention_forward(const AttentionForward& call) {
  const Tensor &out = call.out, &lse = call.lse, &q = call.q, &k = call.k, &v = call.v;
  const AttentionParams& params = call.params;
  const int64_t heads = q.dim(1), group = heads / k.dim(1), head_dim = q.dim(2);
  const auto bounds = call.cu_seqlens.span<int32_t>();
  const int64_t sequences = static_cast<int64_t>(bounds.size()) - 1;
  parallel_for(sequences * heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> scores;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i % heads, start = bounds[i / heads], stop = bounds[i / heads + 1];
      scores.resize(static_cast<size_t>(stop - start));
      auto key = [&](int64_t j) -> const double* { return row(k, start + j, head / group); };
      auto value = [&](int64_t j) -> const double* { return row(v, start + j, head / group); };
      for (int64_t token = start; token < stop; ++token) {
        const double row_lse = attend_row(row(q, token, head), token - start, head_dim, params, key, value,
                                          scores.data(), row(out, token, head));
        if (lse.defined()) lse.data<double>()[head * lse.stride(0) + token] = row_lse;
      }
    }
  });
}

void attention_backward(const AttentionBackward& call) {
  const Tensor &grad_q = call.grad_q, &grad_k = call.grad_k, &grad_v = call.grad_v, &grad_out = call.grad_out;
  const Tensor &q = call.q, &k = call.k, &v = call.v, &out = call.out, &lse = call.lse;
  const AttentionParams& params = call.params;
  const int64_t kv_heads = k.dim(1), group = q.dim(1) / kv_heads, head_dim = q.dim(2);
  const double scale = params.scale;
  const auto bounds = call.cu_seqlens.span<int32_t>();
  const int64_t sequences = static_cast<int64_t>(bounds.size()) - 1;
  parallel_for(sequences * kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t kv_head = i % kv_heads, start = bounds[i / kv_heads], stop = bounds[i / kv_heads + 1];
      for (int64_t token = start; token < stop; ++token) {
        clear(grad_k, token, kv_head);
        clear(grad_v, token, kv_head);
      }
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        for (int64_t token = start; token < stop; ++token) {
          clear(grad_q, token, head);
          const double* g = row(grad_out, token, head);
          const double mean = dot(g, row(out, token, head), head_dim);  // Σ P ∘ dP
          const double row_lse = lse.data<double>()[head * lse.stride(0) + token];
          for (int64_t j = start + first_key(token - start, params); j <= token; ++j) {
            const double score = score_of(dot(row(q, token, head), row(k, j, kv_head), head_dim), params);
            const double p = std::exp(score - row_lse);
            const double ds = p * (dot(g, row(v, j, kv_head), head_dim) - mean) * score_slope(score, params) * scale;
            add_scaled(row(grad_v, j, kv_head), p, g, head_dim);
            add_scaled(row(grad_k, j, kv_head), ds, row(q, token, head), head_dim);
            add_scaled(row(grad_q, token, head), ds, row(k, j, kv_head), head_dim);
          }
        }
      }
    }
  });
}

}  // namespace lathe::kernels::reference
