#include "nn/rope_table.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "core/thread_pool.h"

namespace lathe::nn {
namespace {

// Llama 3.1's rule: long wavelengths are stretched by `factor`, short ones stay, those between are blended.
double scaled_inverse_frequency(double inverse_frequency, const RopeScaling& scaling) {
  if (scaling.kind == RopeScalingKind::none) return inverse_frequency;
  if (scaling.kind == RopeScalingKind::linear) return inverse_frequency / scaling.factor;
  const double context = static_cast<double>(scaling.original_max_position_embeddings);
  const double wavelength = 2 * std::numbers::pi / inverse_frequency;
  if (wavelength < context / scaling.high_freq_factor) return inverse_frequency;
  if (wavelength > context / scaling.low_freq_factor) return inverse_frequency / scaling.factor;
  const double smooth =
      (context / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * inverse_frequency / scaling.factor + smooth * inverse_frequency;
}

template <class T>
autograd::RopeTables fill(const RopeConfig& rope, int64_t head_dim, int64_t positions) {
  const int64_t half = head_dim / 2;
  autograd::RopeTables table{Tensor::empty({positions, half}, dtype_of<T>, {}, MemoryTag::weights),
                             Tensor::empty({positions, half}, dtype_of<T>, {}, MemoryTag::weights)};
  std::vector<float> inverse(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    const float plain = 1.0f / static_cast<float>(std::pow(rope.theta, exponent));
    const double scaled = scaled_inverse_frequency(plain, rope.scaling);
    const double divisor = rope.frequency_factors.empty() ? 1.0 : rope.frequency_factors[static_cast<size_t>(i)];
    inverse[static_cast<size_t>(i)] = static_cast<float>(scaled / divisor);
  }
  T* cosines = table.cos.data<T>();
  T* sines = table.sin.data<T>();
  parallel_for(positions, 256, [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position)
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(position) * inverse[static_cast<size_t>(i)];
        cosines[position * half + i] = std::cos(static_cast<T>(angle));
        sines[position * half + i] = std::sin(static_cast<T>(angle));
      }
  });
  return table;
}

}  // namespace

autograd::RopeTables make_rope_tables(const RopeConfig& rope, int64_t head_dim, DType dtype, int64_t positions) {
  return dtype == DType::f64 ? fill<double>(rope, head_dim, positions) : fill<float>(rope, head_dim, positions);
}

}  // namespace lathe::nn
