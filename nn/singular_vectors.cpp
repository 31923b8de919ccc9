#include "nn/singular_vectors.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"
#include "nn/double_rows.h"
#include "nn/symmetric_eigen.h"

namespace lathe::nn {
namespace {

std::vector<double> doubles(const Tensor& matrix) {
  const auto values = matrix.span<float>();
  return {values.begin(), values.end()};
}

// rows · rowsᵀ of [count, length].
std::vector<double> gram(const std::vector<double>& rows, int64_t count) {
  const size_t n = static_cast<size_t>(count), length = rows.size() / n;
  std::vector<double> products(n * n);
  parallel_for(count, 8, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      for (size_t j = 0; j <= i; ++j)
        products[i * n + j] = products[j * n + i] = dot(&rows[i * length], &rows[j * length], length);
  });
  return products;
}

// For each of the vectors [scales, rows] Σ vector[i] · row i of the matrix [rows, …], divided by its scale (0: zeros).
std::vector<double> combinations(const std::vector<double>& vectors, const std::vector<double>& matrix,
                                 std::span<const double> scales) {
  const size_t rows = vectors.size() / scales.size(), length = matrix.size() / rows;
  std::vector<double> result(scales.size() * length);
  parallel_for(static_cast<int64_t>(scales.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto v = static_cast<size_t>(begin); v < static_cast<size_t>(end); ++v) {
      if (scales[v] == 0) continue;
      double* to = &result[v * length];
      for (size_t i = 0; i < rows; ++i) add_scaled(to, vectors[v * rows + i] / scales[v], &matrix[i * length], length);
    }
  });
  return result;
}

// Below this share of the largest a value is a rounding error of the Gram matrix.
std::vector<double> roots(const std::vector<double>& squares) {
  constexpr double floor = 1e-14;
  std::vector<double> values;
  for (const double square : squares)
    values.push_back(square > floor * squares[0] && square > 0 ? std::sqrt(square) : 0);
  return values;
}

Tensor transposed(const Tensor& weight) { return kernels::cast(weight.transpose(0, 1).clone(), DType::f32); }

SingularVectors exchanged(SingularVectors found) {
  std::swap(found.left, found.right);
  return found;
}

// rows f32 [count, length] made orthonormal.
void orthonormalise_rows(const Tensor& rows) {
  const auto values = rows.span<float>();
  std::vector<double> wide(values.begin(), values.end());
  orthonormalise(wide, rows.dim(1));
  std::transform(wide.begin(), wide.end(), values.begin(), [](double value) { return static_cast<float>(value); });
}

Tensor product(const Tensor& a, const Tensor& b, kernels::Layout layout) {
  Tensor out = Tensor::empty({a.dim(0), layout == kernels::Layout::plain ? b.dim(1) : b.dim(0)}, DType::f32, {},
                             MemoryTag::workspace);
  kernels::matmul(out, a, b, layout);
  return out;
}

}  // namespace

void orthonormalise(std::vector<double>& rows, int64_t row_length) {
  const auto length = static_cast<size_t>(row_length);
  for (size_t at = 0; at < rows.size(); at += length) {
    double* row = &rows[at];
    const double before = std::sqrt(dot(row, row, length));
    for (int pass = 0; pass < 2; ++pass)
      for (size_t unit = 0; unit < at; unit += length)
        add_scaled(row, -dot(row, &rows[unit], length), &rows[unit], length);
    const double left = std::sqrt(dot(row, row, length));
    const double scale = left > 1e-12 * before ? 1 / left : 0;
    for (size_t k = 0; k < length; ++k) row[k] *= scale;
  }
}

SingularVectors leading_singular_vectors(const Tensor& weight, int64_t rank) {
  if (weight.dim(0) > weight.dim(1)) return exchanged(leading_singular_vectors(transposed(weight), rank));
  const int64_t rows = weight.dim(0);
  const std::vector<double> values = doubles(weight);
  EigenPairs pairs = largest_eigenpairs(gram(values, rows), rows, rank);
  SingularVectors found{.values = roots(pairs.values), .left = std::move(pairs.vectors), .right = {}};
  found.right = combinations(found.left, values, found.values);
  return found;
}

SingularVectors random_singular_vectors(const Tensor& weight, int64_t rank, int64_t iterations, uint64_t seed,
                                        uint64_t number) {
  if (weight.dim(0) < weight.dim(1))
    return exchanged(random_singular_vectors(transposed(weight), rank, iterations, seed, number));
  const int64_t columns = weight.dim(1);
  Tensor basis = Tensor::empty({rank, columns}, DType::f32, {}, MemoryTag::workspace);
  RandomStream random(seed, RandomPurpose::init, number);
  for (float& value : basis.span<float>()) value = random.normal();
  // Vectors are rows: those of the columns' space times Wᵀ, those of the rows' times W.
  Tensor range = product(basis, weight, kernels::Layout::transposed);
  orthonormalise_rows(range);
  for (int64_t i = 0; i < iterations; ++i) {
    basis = product(range, weight, kernels::Layout::plain);
    orthonormalise_rows(basis);
    range = product(basis, weight, kernels::Layout::transposed);
    orthonormalise_rows(range);
  }
  const std::vector<double> small = doubles(product(range, weight, kernels::Layout::plain));  // [rank, columns]
  const EigenPairs pairs = largest_eigenpairs(gram(small, rank), rank, rank);
  SingularVectors found{.values = roots(pairs.values), .left = {}, .right = {}};
  const std::vector<double> ones(static_cast<size_t>(rank), 1.0);
  found.left = combinations(pairs.vectors, doubles(range), ones);
  found.right = combinations(pairs.vectors, small, found.values);
  return found;
}

}  // namespace lathe::nn
