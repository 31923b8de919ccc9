#include "kernels/dropout/dropout.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"

namespace lathe::kernels {
namespace {

constexpr int64_t max_columns = int64_t{1} << 16, max_tokens = int64_t{1} << 18, max_samples = int64_t{1} << 16;

void check(const Tensor& out, const Tensor& x, std::span<const int32_t> bounds, std::span<const int32_t> samples,
           const DropoutParams& params) {
  if (!(params.probability >= 0.0f && params.probability < 1.0f)) {
    throw ConfigError("dropout", "a probability in [0, 1) is expected, not " + std::to_string(params.probability));
  }
  const bool fits = x.rank() == 2 && out.shape() == x.shape() && out.dtype() == x.dtype() && x.is_contiguous() &&
                    out.is_contiguous() && x.dim(1) <= max_columns;
  if (!fits) {
    throw ShapeError("dropout takes contiguous [T, K ≤ 65536] tensors of one dtype, not " + describe(x) + " and " +
                     describe(out));
  }
  if (bounds.size() != samples.size() + 1 || bounds.back() != x.dim(0)) {
    throw ShapeError("dropout over " + std::to_string(x.dim(0)) + " tokens got a layout of " +
                     std::to_string(bounds.empty() ? 0 : bounds.back()) + " tokens, " + std::to_string(bounds.size()) +
                     " bounds and " + std::to_string(samples.size()) + " sample numbers");
  }
  for (size_t s = 0; s < samples.size(); ++s) {
    if (samples[s] < 0 || samples[s] >= max_samples || bounds[s + 1] - bounds[s] > max_tokens) {
      throw ShapeError("dropout numbers samples in [0, 65536) of at most 262144 tokens; sequence " + std::to_string(s) +
                       " is sample " + std::to_string(samples[s]) + " with " +
                       std::to_string(bounds[s + 1] - bounds[s]) + " tokens");
    }
  }
}

template <class T, class Accumulate>
void drop_row(T* out, const T* x, int64_t columns, uint64_t position, const DropoutParams& params) {
  const auto threshold = static_cast<uint32_t>(std::ldexp(static_cast<double>(params.probability), 32));
  const Accumulate keep_scale = Accumulate(1) / (Accumulate(1) - static_cast<Accumulate>(params.probability));
  const uint64_t step = (uint64_t{params.step} << 16) | params.stream;
  for (int64_t k = 0; k < columns; k += 4) {
    const PhiloxCounter words =
        random_bits(params.seed, RandomPurpose::dropout, step, position | static_cast<uint64_t>(k / 4));
    for (int64_t j = 0; j < std::min<int64_t>(4, columns - k); ++j) {
      const bool keep = words[static_cast<size_t>(j)] >= threshold;
      out[k + j] = keep ? T(static_cast<Accumulate>(x[k + j]) * keep_scale) : T(Accumulate(0));
    }
  }
}

template <class T, class Accumulate>
void drop(const Tensor& out, const Tensor& x, std::span<const int32_t> bounds, std::span<const int32_t> samples,
          const DropoutParams& params) {
  const int64_t columns = x.dim(1);
  parallel_for(x.dim(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto next = std::upper_bound(bounds.begin(), bounds.end(), static_cast<int32_t>(t));
      const auto sequence = static_cast<size_t>(next - bounds.begin() - 1);
      const auto in_sequence = static_cast<uint64_t>(t - bounds[sequence]);
      const uint64_t position = (static_cast<uint64_t>(samples[sequence]) << 32) | (in_sequence << 14);
      drop_row<T, Accumulate>(out.data<T>() + t * columns, x.data<T>() + t * columns, columns, position, params);
    }
  });
}

}  // namespace

void dropout(const Tensor& out, const Tensor& x, const Tensor& cu_seqlens, const Tensor& sample_numbers,
             const DropoutParams& params) {
  const std::span<const int32_t> bounds = cu_seqlens.span<int32_t>(), samples = sample_numbers.span<int32_t>();
  check(out, x, bounds, samples, params);
  switch (x.dtype()) {
    case DType::f32: return drop<float, float>(out, x, bounds, samples, params);
    case DType::bf16: return drop<bf16, float>(out, x, bounds, samples, params);
    case DType::f64: return drop<double, double>(out, x, bounds, samples, params);
    default: throw ShapeError("dropout works in f32, bf16 and f64, not on " + describe(x));
  }
}

}  // namespace lathe::kernels
