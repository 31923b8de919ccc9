#include "nn/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/thread_pool.h"

namespace lathe::nn {
namespace {

// Llama 3.1's rule: long wavelengths are stretched by `factor`, short ones stay, those between are blended.
double by_wavelength(double inverse_frequency, const RopeScaling& scaling) {
  const double context = static_cast<double>(scaling.original_max_position_embeddings);
  const double wavelength = 2 * std::numbers::pi / inverse_frequency;
  if (wavelength < context / scaling.high_freq_factor) return inverse_frequency;
  if (wavelength > context / scaling.low_freq_factor) return inverse_frequency / scaling.factor;
  const double smooth =
      (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * inverse_frequency / scaling.factor + smooth * inverse_frequency;
}

// YaRN (Peng et al. 2023): the dimensions that turn more than beta_fast times within the original context stay, those
// that turn less than beta_slow times are stretched by `factor`, those between are blended along a ramp.
class YarnRamp {
 public:
  YarnRamp(const RopeConfig& rope, int64_t rotary_dim) : scaling_(rope.scaling) {
    const auto dimension_of = [&](double turns) {
      const double context = static_cast<double>(scaling_.original_max_position_embeddings);
      return static_cast<double>(rotary_dim) * std::log(context / (turns * 2 * std::numbers::pi)) /
             (2 * std::log(rope.theta));
    };
    low_ = dimension_of(scaling_.beta_fast);
    high_ = dimension_of(scaling_.beta_slow);
    if (scaling_.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, static_cast<double>(rotary_dim - 1));
    if (low_ == high_) high_ += 0.001;
  }
  double blended(double inverse_frequency, int64_t i) const {
    const double stretched = std::clamp((static_cast<double>(i) - low_) / (high_ - low_), 0.0, 1.0);
    return inverse_frequency / scaling_.factor * stretched + inverse_frequency * (1 - stretched);
  }

 private:
  const RopeScaling& scaling_;
  double low_, high_;
};

// The base of NTK-aware scaling for a sequence longer than the original context.
double dynamic_theta(const RopeConfig& rope, int64_t rotary_dim, int64_t positions) {
  const RopeScaling& scaling = rope.scaling;
  const auto context = static_cast<double>(scaling.original_max_position_embeddings);
  const double length = std::max(static_cast<double>(positions), context), dim = static_cast<double>(rotary_dim);
  return rope.theta * std::pow(scaling.factor * length / context - (scaling.factor - 1), dim / (dim - 2));
}

std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t rotary_dim, int64_t positions) {
  const RopeScaling& scaling = rope.scaling;
  const bool is_long = positions > scaling.original_max_position_embeddings;
  const double theta =
      scaling.kind == RopeScalingKind::dynamic ? dynamic_theta(rope, rotary_dim, positions) : rope.theta;
  const YarnRamp ramp(rope, rotary_dim);
  std::vector<float> result(static_cast<size_t>(rotary_dim / 2));
  for (size_t i = 0; i < result.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim);
    const float plain = 1.0f / static_cast<float>(std::pow(theta, exponent));
    double scaled = plain;
    switch (scaling.kind) {
      case RopeScalingKind::none:
      case RopeScalingKind::dynamic: break;
      case RopeScalingKind::linear: scaled /= scaling.factor; break;
      case RopeScalingKind::llama3: scaled = by_wavelength(plain, scaling); break;
      case RopeScalingKind::yarn: scaled = ramp.blended(plain, static_cast<int64_t>(i)); break;
      case RopeScalingKind::longrope: scaled /= (is_long ? scaling.long_factor : scaling.short_factor)[i]; break;
    }
    const double divisor = rope.frequency_factors.empty() ? 1.0 : rope.frequency_factors[i];
    result[i] = static_cast<float>(scaled / divisor);
  }
  return result;
}

// What a query at the position is multiplied by, in f32 as transformers has it.
float query_factor(const RopeConfig& rope, int64_t position) {
  const auto context = static_cast<float>(rope.scaling.original_max_position_embeddings);
  const float contexts = std::floor(static_cast<float>(position) / context);
  return 1.0f + static_cast<float>(rope.query_beta) * std::log(1.0f + contexts);
}

// Within the first context the factor is one, and a table of its own would say the same.
bool scales_queries(const RopeConfig& rope, int64_t positions) {
  return rope.query_beta > 0 && positions > rope.scaling.original_max_position_embeddings;
}

template <class T>
void scale_queries(const RopeConfig& rope, int64_t positions, const Tensor& table) {
  const int64_t columns = table.dim(1);
  const T* keys = table.data<T>();
  T* queries = table.data<T>() + positions * columns;
  for (int64_t position = 0; position < positions; ++position) {
    const auto factor = static_cast<T>(query_factor(rope, position));
    for (int64_t i = position * columns; i < (position + 1) * columns; ++i) queries[i] = keys[i] * factor;
  }
}

template <class T>
autograd::RopeTables fill(const RopeConfig& rope, int64_t head_dim, int64_t positions) {
  const int64_t rotary_dim = rope.rotary_dim > 0 ? rope.rotary_dim : head_dim, half = rotary_dim / 2;
  const bool scaled = scales_queries(rope, positions);
  const int64_t rows = scaled ? 2 * positions : positions;
  autograd::RopeTables table{.cos = Tensor::empty({rows, half}, dtype_of<T>, {}, MemoryTag::weights),
                             .sin = Tensor::empty({rows, half}, dtype_of<T>, {}, MemoryTag::weights),
                             .query_row = scaled ? positions : 0};
  const std::vector<float> inverse = inverse_frequencies(rope, rotary_dim, positions);
  const T magnitude = static_cast<T>(rope.scaling.attention_factor);
  T* cosines = table.cos.data<T>();
  T* sines = table.sin.data<T>();
  parallel_for(positions, 256, [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position)
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(position) * inverse[static_cast<size_t>(i)];
        cosines[position * half + i] = std::cos(static_cast<T>(angle)) * magnitude;
        sines[position * half + i] = std::sin(static_cast<T>(angle)) * magnitude;
      }
  });
  if (scaled)
    for (const Tensor& part : {table.cos, table.sin}) scale_queries<T>(rope, positions, part);
  return table;
}

}  // namespace

autograd::RopeTables make_rope_tables(const RopeConfig& rope, int64_t head_dim, DType dtype, int64_t positions) {
  return dtype == DType::f64 ? fill<double>(rope, head_dim, positions) : fill<float>(rope, head_dim, positions);
}

}  // namespace lathe::nn
