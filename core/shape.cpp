#include "core/shape.h"

#include <algorithm>

#include "core/error.h"

namespace lathe {
namespace {

constexpr int64_t max_numel = int64_t{1} << 62;

std::string list_text(std::span<const int64_t> dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}

}  // namespace

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > static_cast<size_t>(max_rank)) {
    throw ShapeError("shape " + list_text(dims) + " has " + std::to_string(dims.size()) + " dimensions; at most " +
                     std::to_string(max_rank) + " are supported");
  }
  // Extents of zero must not hide an overflow of the others: strides are products of them.
  int64_t product = 1;
  for (const int64_t extent : dims) {
    if (extent < 0) throw ShapeError("shape " + list_text(dims) + " has a negative extent");
    const int64_t factor = std::max<int64_t>(extent, 1);
    if (__builtin_mul_overflow(product, factor, &product) || product > max_numel)
      throw ShapeError("shape " + list_text(dims) + " has more than 2^62 elements");
  }
  std::copy(dims.begin(), dims.end(), dims_.begin());
  rank_ = static_cast<int>(dims.size());
}

void Shape::no_dimension(int i) const {
  throw ShapeError("dimension " + std::to_string(i) + " of shape " + to_string(*this) + " does not exist");
}

bool Shape::operator==(const Shape& other) const { return std::ranges::equal(dims(), other.dims()); }

std::string to_string(const Shape& shape) { return list_text(shape.dims()); }

}  // namespace lathe
