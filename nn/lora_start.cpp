#include "nn/lora_start.h"

#include <charconv>
#include <cmath>
#include <vector>

#include "core/random.h"
#include "nn/singular_vectors.h"

namespace lathe::nn {
namespace {

constexpr std::string_view niter_prefix = "pissa_niter_";

Tensor matrix(int64_t rows, int64_t columns) {
  return Tensor::empty({rows, columns}, DType::f32, {}, MemoryTag::adapters);
}

// torch's kaiming_uniform_(a = √5): uniform in ±1/√columns.
Tensor kaiming_uniform(int64_t rows, int64_t columns, RandomStream& random) {
  Tensor values = matrix(rows, columns);
  const float bound = 1.0f / std::sqrt(static_cast<float>(columns));
  for (float& value : values.span<float>()) value = (2.0f * random.uniform() - 1.0f) * bound;
  return values;
}

Tensor normal(int64_t rows, int64_t columns, double deviation, RandomStream& random) {
  Tensor values = matrix(rows, columns);
  for (float& value : values.span<float>()) value = static_cast<float>(deviation * random.normal());
  return values;
}

// Rows of an orthogonal [r, r] matrix: the even ones span what B reads, the odd ones what A writes.
StartingWeights orthogonal(int64_t r, int64_t in, int64_t out, RandomStream& random) {
  std::vector<double> q(static_cast<size_t>(r * r));
  for (double& value : q) value = random.normal();
  orthonormalise(q, r);
  const int64_t half = r / 2;
  const auto combined = [&](int64_t length, int64_t first_row, int64_t i, const std::vector<double>& factors,
                            int64_t k) {
    double sum = 0;
    for (int64_t j = 0; j < half; ++j)
      sum += q[static_cast<size_t>((2 * j + first_row) * r + i)] * factors[static_cast<size_t>(j * length + k)];
    return static_cast<float>(sum / 10);
  };
  StartingWeights start{matrix(r, in), matrix(out, r)};
  std::vector<double> factors(static_cast<size_t>(half * in));
  for (double& value : factors) value = random.normal();
  for (int64_t i = 0; i < r; ++i)
    for (int64_t k = 0; k < in; ++k) start.a.data<float>()[i * in + k] = combined(in, 0, i, factors, k);
  factors.resize(static_cast<size_t>(half * out));
  for (double& value : factors) value = random.normal();
  for (int64_t k = 0; k < out; ++k)
    for (int64_t i = 0; i < r; ++i) start.b.data<float>()[k * r + i] = combined(out, 1, i, factors, k);
  return start;
}

StartingWeights pissa(const SingularVectors& found, int64_t r, int64_t in, int64_t out, double scaling) {
  StartingWeights start{matrix(r, in), matrix(out, r)};
  for (int64_t i = 0; i < r; ++i) {
    const double root = std::sqrt(found.values[static_cast<size_t>(i)] / scaling);
    for (int64_t k = 0; k < in; ++k)
      start.a.data<float>()[i * in + k] = static_cast<float>(root * found.right[static_cast<size_t>(i * in + k)]);
    for (int64_t k = 0; k < out; ++k)
      start.b.data<float>()[k * r + i] = static_cast<float>(root * found.left[static_cast<size_t>(i * out + k)]);
  }
  return start;
}

// W = Q·R: B the first r columns of Q, A the first r rows of R = Qᵀ·W. The scaling is not divided out, as in PEFT.
StartingWeights olora(const Tensor& weight, int64_t r) {
  const int64_t out = weight.dim(0), in = weight.dim(1);
  const float* values = weight.data<float>();
  std::vector<double> q(static_cast<size_t>(r * out));  // its columns in rows
  for (int64_t i = 0; i < r; ++i)
    for (int64_t k = 0; k < out; ++k) q[static_cast<size_t>(i * out + k)] = values[k * in + i];
  orthonormalise(q, out);
  StartingWeights start{matrix(r, in), matrix(out, r)};
  std::vector<double> row(static_cast<size_t>(in));
  for (int64_t i = 0; i < r; ++i) {
    std::fill(row.begin(), row.end(), 0.0);
    for (int64_t k = 0; k < out; ++k) {
      const double factor = q[static_cast<size_t>(i * out + k)];
      for (int64_t j = 0; j < in; ++j) row[static_cast<size_t>(j)] += factor * values[k * in + j];
      start.b.data<float>()[k * r + i] = static_cast<float>(factor);
    }
    for (int64_t j = 0; j < in; ++j)  // R is upper triangular
      start.a.data<float>()[i * in + j] = j < i ? 0 : static_cast<float>(row[static_cast<size_t>(j)]);
  }
  return start;
}

}  // namespace

std::optional<ParsedLoraStart> parse_lora_start(std::string_view text) {
  if (text == "true" || text == "True") return ParsedLoraStart{LoraStart::kaiming};
  if (text == "false" || text == "False") return ParsedLoraStart{LoraStart::random};
  if (text == "gaussian") return ParsedLoraStart{LoraStart::gaussian};
  if (text == "orthogonal") return ParsedLoraStart{LoraStart::orthogonal};
  if (text == "pissa") return ParsedLoraStart{LoraStart::pissa};
  if (text == "olora") return ParsedLoraStart{LoraStart::olora};
  if (!text.starts_with(niter_prefix)) return std::nullopt;
  const std::string_view digits = text.substr(niter_prefix.size());
  int32_t iterations = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), iterations);
  if (error != std::errc{} || end != digits.data() + digits.size() || iterations < 0 || iterations > 1000)
    return std::nullopt;
  return ParsedLoraStart{LoraStart::pissa_niter, iterations};
}

StartingWeights random_start(LoraStart kind, int64_t r, int64_t in, int64_t out, uint64_t seed,
                             uint64_t linear_number) {
  RandomStream random(seed, RandomPurpose::init, linear_number);
  if (kind == LoraStart::orthogonal) return orthogonal(r, in, out, random);
  Tensor a = kind == LoraStart::gaussian ? normal(r, in, 1.0 / static_cast<double>(r), random)
                                         : kaiming_uniform(r, in, random);
  if (kind == LoraStart::random) return {std::move(a), kaiming_uniform(out, r, random)};
  return {std::move(a), Tensor::zeros({out, r}, DType::f32, {}, MemoryTag::adapters)};
}

StartingWeights start_from_base(const ParsedLoraStart& start, const Tensor& weight, int64_t r, double scaling,
                                uint64_t seed, uint64_t linear_number) {
  if (start.kind == LoraStart::olora) return olora(weight, r);
  const SingularVectors found = start.kind == LoraStart::pissa
                                    ? leading_singular_vectors(weight, r)
                                    : random_singular_vectors(weight, r, start.iterations, seed, linear_number);
  return pissa(found, r, weight.dim(1), weight.dim(0), scaling);
}

}  // namespace lathe::nn
