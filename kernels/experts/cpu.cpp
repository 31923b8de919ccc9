#include <cmath>

#include "kernels/experts/bodies.h"
#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

struct Logits {
  float at[most_experts];
  float largest, sum;  // Σ exp(z − largest)
};

template <class T>
void read_logits(Logits& z, const ConstMatrix& logits, int64_t row, int64_t n) {
  const T* from = row_of<T>(logits, row);
  for_row(n, [&](int64_t i, int count) { store_some(z.at + i, load_some(from + i, count), count); });
  z.largest = z.at[0];
  for (int64_t e = 1; e < n; ++e) z.largest = z.at[e] > z.largest ? z.at[e] : z.largest;
  z.sum = row_sum(n, [&](Vec partial, int64_t i, int count) {
    const Vec shifted = exp(load_some(z.at + i, count) - splat(z.largest));
    return partial + (count == lanes ? shifted : select(first_lanes(count), shifted, zero()));
  });
}

float exp_of(float x) {
  const Vec e = exp(splat(x));
  float first;
  __builtin_memcpy(&first, &e, sizeof first);
  return first;
}

// The experts in the order of their logits, of equal ones the lower number first: the one that comes after (value,
// expert), or `otherwise` where NaNs have left none.
int32_t next_expert(const Logits& z, int64_t n, float value, int32_t expert, int32_t otherwise) {
  int32_t best = -1;
  for (int32_t e = 0; e < n; ++e) {
    const bool comes_after = expert < 0 || z.at[e] < value || (z.at[e] == value && e > expert);
    if (comes_after && !std::isnan(z.at[e]) && (best < 0 || z.at[e] > z.at[best])) best = e;
  }
  return best < 0 ? otherwise : best;
}

// By p = σ(z) and what is added to it.
void choose_by_sigmoids(const ChooseExpertsArgs& args, int64_t row) {
  Logits order;
  float p[most_experts];
  with_element(args.dtype, [&]<class T>(T) { read_logits<T>(order, args.logits, row, args.columns); });
  const bool has_nan = std::isnan(order.sum);
  for_row(args.columns, [&](int64_t i, int count) {
    const Vec value = sigmoid(load_some(order.at + i, count));
    store_some(p + i, value, count);
    store_some(order.at + i, args.bias != nullptr ? value + load_some(args.bias + i, count) : value, count);
  });
  float* weights = args.weights + row * args.per_token;
  int32_t* chosen = args.chosen + row * args.per_token;
  float value = 0, total = sigmoid_sum_offset;
  int32_t expert = -1;
  for (int64_t i = 0; i < args.per_token; ++i) {
    expert = next_expert(order, args.columns, value, expert, static_cast<int32_t>(i));
    value = order.at[expert];
    chosen[i] = expert;
    weights[i] = p[expert];
    total += weights[i];
  }
  const float factor = args.scale / (has_nan ? order.sum : args.kind == ExpertWeights::sigmoids ? 1.0f : total);
  for (int64_t i = 0; i < args.per_token; ++i) weights[i] *= factor;
}

void choose(const ChooseExpertsArgs& args, int64_t row) {
  if (args.kind >= ExpertWeights::sigmoids) return choose_by_sigmoids(args, row);
  Logits z;
  with_element(args.dtype, [&]<class T>(T) { read_logits<T>(z, args.logits, row, args.columns); });
  float* weights = args.weights + row * args.per_token;
  int32_t* chosen = args.chosen + row * args.per_token;
  float value = 0, total = 0;
  int32_t expert = -1;
  for (int64_t i = 0; i < args.per_token; ++i) {
    expert = next_expert(z, args.columns, value, expert, static_cast<int32_t>(i));
    value = z.at[expert];
    chosen[i] = expert;
    weights[i] = exp_of(value - z.largest);
    total += weights[i];
  }
  const float divisor = args.kind == ExpertWeights::probabilities || std::isnan(z.sum) ? z.sum : total;
  for (int64_t i = 0; i < args.per_token; ++i) weights[i] /= divisor;
}

template <class T>
void choose_backward_by_sigmoids(const ChooseExpertsBackwardArgs& args, int64_t row) {
  const float *g = args.grad_weights + row * args.per_token, *weights = args.weights + row * args.per_token;
  const int32_t* chosen = args.chosen + row * args.per_token;
  const T* z = row_of<T>(args.logits, row);
  T* out = row_of<T>(args.grad_logits, row);
  float mean = 0;
  for (int64_t i = 0; i < args.per_token; ++i) mean += g[i] * weights[i];
  mean = args.kind == ExpertWeights::sigmoids ? 0.0f : mean / args.scale;
  for_row(args.columns, [&](int64_t i, int count) { store_some(out + i, zero(), count); });
  for (int64_t i = 0; i < args.per_token; ++i) {
    const Vec rest = splat(1.0f) - sigmoid(load_partial(z + chosen[i], 1));
    store_partial(out + chosen[i], splat(weights[i] * (g[i] - mean)) * rest, 1);
  }
}

template <class T>
void choose_backward(const ChooseExpertsBackwardArgs& args, int64_t row) {
  if (args.kind >= ExpertWeights::sigmoids) return choose_backward_by_sigmoids<T>(args, row);
  const float *g = args.grad_weights + row * args.per_token, *weights = args.weights + row * args.per_token;
  const int32_t* chosen = args.chosen + row * args.per_token;
  T* out = row_of<T>(args.grad_logits, row);
  float mean = 0;
  for (int64_t i = 0; i < args.per_token; ++i) mean += g[i] * weights[i];
  if (args.kind == ExpertWeights::probabilities) {
    Logits z;
    read_logits<T>(z, args.logits, row, args.columns);
    const Vec shift = splat(z.largest), factor = splat(-mean / z.sum);
    for_row(args.columns, [&](int64_t i, int count) {
      store_some(out + i, exp(load_some(z.at + i, count) - shift) * factor, count);
    });
  } else {
    for_row(args.columns, [&](int64_t i, int count) { store_some(out + i, zero(), count); });
  }
  for (int64_t i = 0; i < args.per_token; ++i) store_partial(out + chosen[i], splat(weights[i] * (g[i] - mean)), 1);
}

template <class T>
void combine(const CombineExpertsArgs& args, int64_t token) {
  const int32_t* slots = args.slots + token * args.per_token;
  const float* weights = args.weights != nullptr ? args.weights + token * args.per_token : nullptr;
  const T* residual = row_of<T>(args.residual, token);
  T* out = row_of<T>(args.out, token);
  for_row(args.columns, [&](int64_t column, int count) {
    Vec sum = zero();
    for (int64_t i = 0; i < args.per_token; ++i)
      sum = fma(splat(weights != nullptr ? weights[i] : 1.0f),
                load_some(row_of<T>(args.rows, slots[i]) + column, count), sum);
    if (args.residual.data != nullptr) sum = load_some(residual + column, count) + round_to<T>(sum);
    store_some(out + column, sum, count);
  });
}

template <class T>
void combine_backward(const CombineExpertsBackwardArgs& args, int64_t token) {
  const T* g = row_of<T>(args.grad_out, token);
  for (int64_t i = 0; i < args.per_token; ++i) {
    const int64_t slot = args.slots[token * args.per_token + i];
    const T* row = row_of<T>(args.rows, slot);
    if (args.grad_weights != nullptr)
      args.grad_weights[token * args.per_token + i] =
          row_sum(args.columns, [&](Vec partial, int64_t column, int count) {
            return fma(load_some(g + column, count), load_some(row + column, count), partial);
          });
    if (args.grad_rows.data == nullptr) continue;
    const Vec weight = splat(args.weights != nullptr ? args.weights[token * args.per_token + i] : 1.0f);
    T* grad_row = row_of<T>(args.grad_rows, slot);
    for_row(args.columns, [&](int64_t column, int count) {
      store_some(grad_row + column, weight * load_some(g + column, count), count);
    });
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void choose_experts_rows(ChooseExpertsArgs args) {
  for (int64_t row = args.row_begin; row < args.row_end; ++row) choose(args, row);
}
template void choose_experts_rows<Isa::LATHE_ISA>(ChooseExpertsArgs);

template <Isa>
void choose_experts_backward_rows(ChooseExpertsBackwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) choose_backward<T>(args, row);
  });
}
template void choose_experts_backward_rows<Isa::LATHE_ISA>(ChooseExpertsBackwardArgs);

template <Isa>
void combine_experts_rows(CombineExpertsArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) combine<T>(args, row);
  });
}
template void combine_experts_rows<Isa::LATHE_ISA>(CombineExpertsArgs);

template <Isa>
void combine_experts_backward_rows(CombineExpertsBackwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = args.row_begin; row < args.row_end; ++row) combine_backward<T>(args, row);
  });
}
template void combine_experts_backward_rows<Isa::LATHE_ISA>(CombineExpertsBackwardArgs);

}  // namespace lathe::kernels
