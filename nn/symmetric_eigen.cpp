#include "nn/symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "core/random.h"
#include "nn/double_rows.h"

namespace lathe::nn {
namespace {

constexpr double epsilon = std::numeric_limits<double>::epsilon();

using Row = std::span<double>;
using ConstRow = std::span<const double>;

// to += factor · row.
void add(Row to, double factor, ConstRow row) { add_scaled(to.data(), factor, row.data(), to.size()); }
double dot(ConstRow a, ConstRow b) { return nn::dot(a.data(), b.data(), a.size()); }

// x −= (x · unit) · unit for each of the rows, twice: once leaves what rounding brought back.
void remove_parts(Row x, ConstRow units) {
  for (int pass = 0; pass < 2; ++pass)
    for (size_t at = 0; at < units.size(); at += x.size()) {
      const ConstRow unit = units.subspan(at, x.size());
      add(x, -dot(x, unit), unit);
    }
}

struct Tridiagonal {
  std::vector<double> diagonal, beside;  // n, and n − 1 off it
  // The k-th reflection I − factors[k] · v vᵀ, v = reflectors[k, k + 1 … n − 1].
  std::vector<double> reflectors, factors;
  double norm = 0;
};

Tridiagonal tridiagonal(std::vector<double> matrix, size_t n) {
  Tridiagonal t{.diagonal = std::vector<double>(n),
                .beside = std::vector<double>(n > 0 ? n - 1 : 0),
                .reflectors = std::vector<double>(n * n),
                .factors = std::vector<double>(n)};
  std::vector<double> product(n);
  for (size_t k = 0; k < n; ++k) {
    t.diagonal[k] = matrix[k * n + k];
    if (k + 1 == n) break;
    const size_t m = n - k - 1;
    const Row v = Row(t.reflectors).subspan(k * n + k + 1, m), p = Row(product).first(m);
    std::copy_n(matrix.begin() + static_cast<std::ptrdiff_t>(k * n + k + 1), m, v.begin());
    const double length = std::sqrt(dot(v, v)), rest = m > 1 ? dot(v.subspan(1), v.subspan(1)) : 0;
    t.beside[k] = v[0];
    if (rest == 0) continue;  // nothing to reflect
    const double target = v[0] > 0 ? -length : length;
    t.beside[k] = target;
    v[0] -= target;
    const double factor = t.factors[k] = 2 / (v[0] * v[0] + rest);
    // A ← (I − f v vᵀ) A (I − f v vᵀ) = A − v wᵀ − w vᵀ, w = f A v − ½ f² (vᵀ A v) v.
    const auto row = [&](size_t i) { return Row(matrix).subspan((k + 1 + i) * n + k + 1, m); };
    std::fill(p.begin(), p.end(), 0.0);
    for (size_t i = 0; i < m; ++i) add(p, factor * v[i], row(i));
    add(p, -factor / 2 * dot(p, v), v);
    for (size_t i = 0; i < m; ++i) {
      const double vi = v[i], wi = p[i];
      add(row(i), -vi, p);
      add(row(i), -wi, v);
    }
  }
  for (size_t i = 0; i < n; ++i)
    t.norm = std::max(t.norm, std::abs(t.diagonal[i]) + (i > 0 ? std::abs(t.beside[i - 1]) : 0) +
                                  (i + 1 < n ? std::abs(t.beside[i]) : 0));
  return t;
}

// How many eigenvalues lie below x: the negative pivots of T − x (Sturm).
size_t values_below(const Tridiagonal& t, double x) {
  const double least = epsilon * t.norm + std::numeric_limits<double>::min();
  size_t count = 0;
  double pivot = 1;
  for (size_t i = 0; i < t.diagonal.size(); ++i) {
    pivot = t.diagonal[i] - x - (i > 0 ? t.beside[i - 1] * t.beside[i - 1] / pivot : 0);
    if (std::abs(pivot) < least) pivot = -least;
    count += pivot < 0;
  }
  return count;
}

// The eigenvalue that has `below` others below it.
double eigenvalue(const Tridiagonal& t, size_t below) {
  double low = -t.norm, high = t.norm;
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (!(middle > low && middle < high) || high - low <= 2 * epsilon * t.norm) return middle;
    (values_below(t, middle) > below ? high : low) = middle;
  }
}

// x ← (T − value)⁻¹ x by elimination with row exchanges.
void solve(const Tridiagonal& t, double value, Row x) {
  const size_t n = x.size();
  const double least = epsilon * t.norm + std::numeric_limits<double>::min();
  std::vector<double> first(n), second(n), third(n);  // of the upper triangle: the diagonal and two beside it
  double next = t.diagonal[0] - value, next_beside = n > 1 ? t.beside[0] : 0;
  for (size_t i = 0; i < n; ++i) {
    first[i] = next;
    second[i] = next_beside;
    if (i + 1 == n) break;
    const double below = t.beside[i], diagonal = t.diagonal[i + 1] - value, after = i + 2 < n ? t.beside[i + 1] : 0;
    if (std::abs(below) > std::abs(first[i])) {
      const double factor = first[i] / below;
      next = second[i] - factor * diagonal;
      next_beside = -factor * after;
      first[i] = below;
      second[i] = diagonal;
      third[i] = after;
      std::swap(x[i], x[i + 1]);
      x[i + 1] -= factor * x[i];
    } else {
      const double factor = below / (std::abs(first[i]) < least ? least : first[i]);
      next = diagonal - factor * second[i];
      next_beside = after;
      x[i + 1] -= factor * x[i];
    }
  }
  for (size_t i = n; i-- > 0;) {
    if (i + 1 < n) x[i] -= second[i] * x[i + 1];
    if (i + 2 < n) x[i] -= third[i] * x[i + 2];
    x[i] /= std::abs(first[i]) < least ? least : first[i];
  }
}

// At right angles to the vectors found before.
void eigenvector(const Tridiagonal& t, double value, uint64_t number, ConstRow before, Row x) {
  RandomStream random(number, RandomPurpose::init);
  for (double& element : x) element = random.uniform() - 0.5;
  constexpr int iterations = 4;  // two are enough but for values that lie close together
  for (int i = 0; i < iterations; ++i) {
    remove_parts(x, before);
    const double scale = 1 / std::sqrt(dot(x, x));
    for (double& element : x) element *= scale;
    solve(t, value, x);
    // The solution may be as large as 1 ÷ epsilon.
    const double largest =
        std::abs(*std::max_element(x.begin(), x.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }));
    for (double& element : x) element /= largest;
  }
  remove_parts(x, before);
  const double scale = 1 / std::sqrt(dot(x, x));
  for (double& element : x) element *= scale;
}

}  // namespace

EigenPairs largest_eigenpairs(std::vector<double> matrix, int64_t n, int64_t count) {
  const auto size = static_cast<size_t>(n), wanted = static_cast<size_t>(count);
  const Tridiagonal t = tridiagonal(std::move(matrix), size);
  EigenPairs pairs{std::vector<double>(wanted), std::vector<double>(wanted * size)};
  if (t.norm == 0) {
    for (size_t i = 0; i < wanted; ++i) pairs.vectors[i * size + i] = 1;
    return pairs;
  }
  double shift = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < wanted; ++i) {
    pairs.values[i] = eigenvalue(t, size - 1 - i);
    // Of equal values each has its own shift, or its vector would be sought where the last was found.
    shift = std::min(pairs.values[i], shift - 10 * epsilon * t.norm);
    const Row all(pairs.vectors);
    eigenvector(t, shift, i, all.first(i * size), all.subspan(i * size, size));
  }
  for (size_t i = 0; i < wanted; ++i) {
    const Row vector = Row(pairs.vectors).subspan(i * size, size);
    for (size_t k = size; k-- > 0;) {
      if (t.factors[k] == 0) continue;
      const ConstRow v = ConstRow(t.reflectors).subspan(k * size + k + 1, size - k - 1);
      const Row part = vector.subspan(k + 1);
      add(part, -t.factors[k] * dot(part, v), v);
    }
  }
  return pairs;
}

}  // namespace lathe::nn
