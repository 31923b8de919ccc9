#include "kernels/linear_cross_entropy/row_log_sum.h"
#include "kernels/linear_cross_entropy/rows.h"
#include "kernels/simd/element.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

void cap(float* z, int64_t n, float softcap) {
  const Vec limit = splat(softcap);
  for_row(n, [&](int64_t i, int count) { store_some(z + i, limit * tanh(load_some(z + i, count) / limit), count); });
}

void multiply(float* z, int64_t n, float by) {
  const Vec factor = splat(by);
  for_row(n, [&](int64_t i, int count) { store_some(z + i, load_some(z + i, count) * factor, count); });
}

// The label is the first of the largest logits.
bool is_first_maximum(const float* z, int64_t label, float largest) {
  if (!(z[label] == largest)) return false;
  for (int64_t i = 0; i < label; ++i) {
    if (z[i] == largest) return false;
  }
  return true;
}

// Σ exp(d) · d, d = z − largest. Where exp(d) is 0 the product is 0, even for d = −inf.
float row_exp_moment(const float* z, int64_t n, float largest) {
  const Vec shift = splat(largest), floor = splat(-200.0f);
  return row_sum(n, [&](Vec partial, int64_t i, int count) {
    const Vec d = load_logits(z + i, count) - shift;
    return fma(exp(d), max(d, floor), partial);
  });
}

// Σ exp(2d), d = z − largest.
float row_square_sum(const float* z, int64_t n, float largest) {
  const Vec shift = splat(largest);
  return row_sum(n, [&](Vec partial, int64_t i, int count) {
    const Vec d = load_logits(z + i, count) - shift;
    return partial + exp(d + d);
  });
}

float exp_of(float x) {
  const Vec e = exp(splat(x));
  float first;
  __builtin_memcpy(&first, &e, sizeof first);
  return first;
}

// scale · (softmax − onehot), through the cap when there is one. T is no wider than the logits, so that what is written
// at column i never reaches a logit that is still to be read.
template <class T, bool capped>
void gradient_row(const CrossEntropyRows<float>& rows, float* z, int64_t token, float largest, float sum) {
  const int64_t label = rows.labels[token];
  const float scale = rows.scale_of(token) * rows.inverse_temperature;
  const Vec shift = splat(largest), factor = splat(scale / sum);
  const float inverse_cap = capped ? 1.0f / (rows.softcap * rows.inverse_temperature) : 0.0f;
  float at_label = scale * (exp_of(z[label] - largest) / sum - 1.0f);
  if (capped) at_label *= 1.0f - (z[label] * inverse_cap) * (z[label] * inverse_cap);
  T* out = reinterpret_cast<T*>(z);
  for_row(rows.columns, [&](int64_t i, int count) {
    const Vec logits = load_some(z + i, count);
    Vec gradient = exp(logits - shift) * factor;
    if (capped) {
      const Vec ratio = logits * splat(inverse_cap);
      gradient = gradient * (splat(1.0f) - ratio * ratio);
    }
    store_some(out + i, gradient, count);
  });
  store_partial(out + label, splat(at_label), 1);
}

// The same with the entropy's share: p · (s − e · (log p + E)), less s at the label.
template <class T>
void gradient_row_with_entropy(const CrossEntropyRows<float>& rows, float* z, int64_t token, float largest, float sum,
                               float entropy) {
  const int64_t label = rows.labels[token];
  const float scale = rows.scale_of(token) * rows.inverse_temperature;
  const float entropy_scale = rows.entropy_scales[token] * rows.inverse_temperature;
  const float log_sum = log_of_sum(sum);
  const bool capped = rows.softcap > 0.0f;
  const Vec inverse_cap = splat(capped ? 1.0f / (rows.softcap * rows.inverse_temperature) : 0.0f);
  const Vec shift = splat(largest), inverse_sum = splat(1.0f / sum), of_loss = splat(scale),
            of_entropy = splat(entropy_scale), beside = splat(entropy - log_sum), floor = splat(-200.0f);
  const auto gradient_of = [&](Vec logits, Vec onehot) {
    const Vec d = logits - shift;
    const Vec p = exp(d) * inverse_sum;
    // Where p is 0 the product is 0, even for d = −inf.
    const Vec gradient = of_loss * (p - onehot) - of_entropy * (p * (max(d, floor) + beside));
    const Vec ratio = logits * inverse_cap;
    return gradient * (splat(1.0f) - ratio * ratio);
  };
  const Vec at_label = gradient_of(splat(z[label]), splat(1.0f));
  T* out = reinterpret_cast<T*>(z);
  for_row(rows.columns,
          [&](int64_t i, int count) { store_some(out + i, gradient_of(load_some(z + i, count), splat(0.0f)), count); });
  store_partial(out + label, at_label, 1);
}

template <class T>
void gradient_row(const CrossEntropyRows<float>& rows, float* z, int64_t token, float largest, float sum) {
  rows.softcap > 0.0f ? gradient_row<T, true>(rows, z, token, largest, sum)
                      : gradient_row<T, false>(rows, z, token, largest, sum);
}

void cross_entropy_row(const CrossEntropyRows<float>& rows, int64_t row) {
  float* z = rows.logits + row * rows.stride;
  const int64_t token = rows.tokens[row], label = rows.labels[token];
  if (rows.softcap > 0.0f) cap(z, rows.columns, rows.softcap);
  if (rows.inverse_temperature != 1.0f) multiply(z, rows.columns, rows.inverse_temperature);
  const float largest = row_max(z, rows.columns);
  const float sum = row_exp_sum(z, rows.columns, largest);
  const float log_sum = log_of_sum(sum);
  if (rows.loss != nullptr) rows.loss[token] = -log_probability(z[label], largest, log_sum);
  float entropy = 0.0f;
  if (rows.entropy != nullptr || (rows.gradient && rows.entropy_scales != nullptr))
    entropy = log_sum - row_exp_moment(z, rows.columns, largest) / sum;
  if (rows.entropy != nullptr) rows.entropy[token] = entropy;
  if (rows.log_sum_sq_probs != nullptr)
    rows.log_sum_sq_probs[token] = log_of_sum(row_square_sum(z, rows.columns, largest)) - 2.0f * log_sum;
  if (rows.correct != nullptr) rows.correct[token] = is_first_maximum(z, label, largest);
  if (!rows.gradient) return;
  with_element(rows.gradient_dtype, [&]<class T>(T) {
    rows.entropy_scales != nullptr ? gradient_row_with_entropy<T>(rows, z, token, largest, sum, entropy)
                                   : gradient_row<T>(rows, z, token, largest, sum);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void cross_entropy_rows(CrossEntropyRows<float> rows) {
  for (int64_t row = rows.row_begin; row < rows.row_end; ++row) cross_entropy_row(rows, row);
}
template void cross_entropy_rows<Isa::LATHE_ISA>(CrossEntropyRows<float>);

template <Isa>
void token_logprob_rows(TokenLogprobRows<float> rows) {
  for (int64_t row = rows.row_begin; row < rows.row_end; ++row) {
    const float* z = rows.logits + row * rows.stride;
    const float largest = row_max(z, rows.columns);
    const float log_sum = log_of_sum(row_exp_sum(z, rows.columns, largest));
    rows.logprobs[row] = log_probability(z[rows.targets[row]], largest, log_sum);
  }
}
template void token_logprob_rows<Isa::LATHE_ISA>(TokenLogprobRows<float>);

}  // namespace lathe::kernels
