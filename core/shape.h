// The extents of a tensor, held inline: at most six dimensions.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace lathe {

class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  // Throws ShapeError for more than max_rank dimensions, a negative extent or a product beyond 2^62.
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t numel() const {
    int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= dims_[static_cast<size_t>(i)];
    return product;
  }
  // Negative indices count from the end. Throws ShapeError when out of range.
  int64_t operator[](int i) const {
    const int index = i < 0 ? i + rank_ : i;
    if (index < 0 || index >= rank_) no_dimension(i);
    return dims_[static_cast<size_t>(index)];
  }
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  bool operator==(const Shape& other) const;

 private:
  [[noreturn]] void no_dimension(int i) const;

  std::array<int64_t, max_rank> dims_{};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);  // "[2, 3]"

}  // namespace lathe
