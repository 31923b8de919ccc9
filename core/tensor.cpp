#include "core/tensor.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"

namespace lathe {
namespace {

using Strides = std::array<int64_t, Shape::max_rank>;

Strides contiguous_strides(const Shape& shape) {
  Strides strides{};
  int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[static_cast<size_t>(i)] = step;
    step *= std::max<int64_t>(shape[i], 1);
  }
  return strides;
}

int64_t checked_bytes(const Shape& shape, DType dtype) {
  if (shape.numel() > std::numeric_limits<int64_t>::max() / size_of(dtype)) {
    throw ShapeError(std::string(name_of(dtype)) + to_string(shape) + " has more than 2^63 bytes");
  }
  return shape.numel() * size_of(dtype);
}

int checked_dimension(const Tensor& tensor, int dimension, const char* operation) {
  const int index = dimension < 0 ? dimension + tensor.rank() : dimension;
  if (index < 0 || index >= tensor.rank()) {
    throw ShapeError(std::string(operation) + ": dimension " + std::to_string(dimension) + " of " + describe(tensor) +
                     " does not exist");
  }
  return index;
}

// Walks the outer dimensions of a strided source in row-major order and copies runs of its last one.
void copy_strided(const Tensor& source, char* target) {
  const int64_t size = size_of(source.dtype());
  const int last = source.rank() - 1;
  const int64_t run = source.dim(last);
  const int64_t run_stride = source.stride(last) * size;
  std::array<int64_t, Shape::max_rank> index{};
  const char* row = static_cast<const char*>(source.raw());
  for (int64_t rows = source.numel() / run; rows > 0; --rows) {
    if (run_stride == size) {
      std::memcpy(target, row, static_cast<size_t>(run * size));
    } else {
      for (int64_t i = 0; i < run; ++i) {
        std::memcpy(target + i * size, row + i * run_stride, static_cast<size_t>(size));
      }
    }
    target += run * size;
    for (int i = last - 1; i >= 0; --i) {
      int64_t& position = index[static_cast<size_t>(i)];
      row += source.stride(i) * size;
      if (++position < source.dim(i)) break;
      row -= position * source.stride(i) * size;
      position = 0;
    }
  }
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device, std::optional<MemoryTag> tag) {
  Tensor result;
  result.storage_ = Storage::allocate(checked_bytes(shape, dtype), device, tag.value_or(MemoryTagScope::current()));
  result.shape_ = shape;
  result.strides_ = contiguous_strides(shape);
  result.dtype_ = dtype;
  return result;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device, std::optional<MemoryTag> tag) {
  Tensor result = empty(shape, dtype, device, tag);
  fill_zero(device, result.raw(), result.nbytes());
  return result;
}

Tensor Tensor::from_storage(std::shared_ptr<Storage> storage, int64_t byte_offset, const Shape& shape, DType dtype) {
  const std::string wanted = std::string(name_of(dtype)) + to_string(shape);
  if (!storage) throw ShapeError(wanted + " cannot view an absent storage");
  const int64_t bytes = checked_bytes(shape, dtype);
  if (byte_offset < 0 || byte_offset > storage->nbytes() || bytes > storage->nbytes() - byte_offset) {
    throw ShapeError(wanted + " (" + std::to_string(bytes) + " bytes) at byte " + std::to_string(byte_offset) +
                     " does not fit a storage of " + std::to_string(storage->nbytes()) + " bytes");
  }
  const auto address = reinterpret_cast<uintptr_t>(storage->data()) + static_cast<uintptr_t>(byte_offset);
  if (bytes > 0 && address % static_cast<uintptr_t>(size_of(dtype)) != 0) {
    throw ShapeError(wanted + " at byte " + std::to_string(byte_offset) + " of its storage is not aligned to " +
                     std::to_string(size_of(dtype)) + " bytes; copy it instead of viewing it");
  }
  Tensor result;
  result.storage_ = std::move(storage);
  result.shape_ = shape;
  result.strides_ = contiguous_strides(shape);
  result.byte_offset_ = byte_offset;
  result.dtype_ = dtype;
  return result;
}

bool Tensor::is_contiguous() const {
  if (numel() == 0) return true;
  int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (dim(i) == 1) continue;  // a stride that is never taken
    if (stride(i) != step) return false;
    step *= dim(i);
  }
  return true;
}

Tensor Tensor::view(const Shape& shape) const {
  check_contiguous();
  if (shape.numel() != numel()) {
    throw ShapeError("view: " + describe(*this) + " has " + std::to_string(numel()) + " elements, " + to_string(shape) +
                     " has " + std::to_string(shape.numel()));
  }
  Tensor result = *this;
  result.shape_ = shape;
  result.strides_ = contiguous_strides(shape);
  return result;
}

Tensor Tensor::view(std::initializer_list<int64_t> dims) const {
  if (std::ranges::count(dims, -1) == 0) return view(Shape(dims));
  if (dims.size() > static_cast<size_t>(Shape::max_rank)) return view(Shape(dims));  // throws with the list
  std::array<int64_t, Shape::max_rank> known{};
  std::ranges::copy(dims, known.begin());
  int64_t& inferred = *std::ranges::find(known, -1);
  inferred = 1;
  const Shape rest(std::span<const int64_t>(known.data(), dims.size()));  // refuses a second negative extent
  if (rest.numel() == 0 || numel() % rest.numel() != 0) {
    throw ShapeError("view: no extent for -1 makes " + to_string(rest) + " hold the " + std::to_string(numel()) +
                     " elements of " + describe(*this));
  }
  inferred = numel() / rest.numel();
  return view(Shape(std::span<const int64_t>(known.data(), dims.size())));
}

Tensor Tensor::slice(int dimension, int64_t begin, int64_t end) const {
  const int d = checked_dimension(*this, dimension, "slice");
  const int64_t extent = dim(d);
  const int64_t first = begin < 0 ? begin + extent : begin;
  const int64_t last = end < 0 ? end + extent : end;
  if (first < 0 || first > last || last > extent) {
    throw ShapeError("slice: [" + std::to_string(begin) + ", " + std::to_string(end) +
                     ") is not a range of dimension " + std::to_string(d) + " of " + describe(*this));
  }
  std::array<int64_t, Shape::max_rank> dims{};
  std::ranges::copy(shape_.dims(), dims.begin());
  dims[static_cast<size_t>(d)] = last - first;
  Tensor result = *this;
  result.shape_ = Shape(std::span<const int64_t>(dims.data(), static_cast<size_t>(rank())));
  if (result.numel() > 0) result.byte_offset_ += first * stride(d) * size_of(dtype_);
  return result;
}

Tensor Tensor::select(int dimension, int64_t index) const {
  const int d = checked_dimension(*this, dimension, "select");
  const int64_t position = index < 0 ? index + dim(d) : index;
  if (position < 0 || position >= dim(d)) {
    throw ShapeError("select: index " + std::to_string(index) + " is outside dimension " + std::to_string(d) + " of " +
                     describe(*this));
  }
  std::array<int64_t, Shape::max_rank> dims{};
  Tensor result = slice(d, position, position + 1);
  for (int from = 0, to = 0; from < rank(); ++from) {
    if (from == d) continue;
    dims[static_cast<size_t>(to)] = dim(from);
    result.strides_[static_cast<size_t>(to++)] = stride(from);
  }
  result.shape_ = Shape(std::span<const int64_t>(dims.data(), static_cast<size_t>(rank() - 1)));
  return result;
}

Tensor Tensor::transpose(int a, int b) const {
  const auto i = static_cast<size_t>(checked_dimension(*this, a, "transpose"));
  const auto j = static_cast<size_t>(checked_dimension(*this, b, "transpose"));
  std::array<int64_t, Shape::max_rank> dims{};
  std::ranges::copy(shape_.dims(), dims.begin());
  std::swap(dims[i], dims[j]);
  Tensor result = *this;
  result.shape_ = Shape(std::span<const int64_t>(dims.data(), static_cast<size_t>(rank())));
  std::swap(result.strides_[i], result.strides_[j]);
  return result;
}

Tensor Tensor::clone(std::optional<MemoryTag> tag) const {
  if (!defined()) return {};
  if (device().kind != DeviceKind::cpu) {
    throw ShapeError("clone: " + describe(*this) + " is not in CPU memory; copy it with the copy kernel");
  }
  Tensor result = empty(shape_, dtype_, device(), tag);
  if (numel() == 0) return result;
  if (is_contiguous()) {
    std::memcpy(result.raw(), raw(), static_cast<size_t>(nbytes()));
  } else {
    copy_strided(*this, static_cast<char*>(result.raw()));
  }
  return result;
}

void Tensor::check_dtype(DType wanted) const {
  if (!defined()) throw ShapeError("an undefined tensor was read as " + std::string(name_of(wanted)));
  if (dtype_ != wanted) {
    throw ShapeError(describe(*this) + " was read as " + std::string(name_of(wanted)));
  }
}

void Tensor::check_contiguous() const {
  if (!is_contiguous()) {
    throw ShapeError(describe(*this) + " is a strided view where contiguous elements are needed; clone() it first");
  }
}

std::string describe(const Tensor& tensor) {
  if (!tensor.defined()) return "undefined tensor";
  return std::string(name_of(tensor.dtype())) + to_string(tensor.shape()) + " on " + to_string(tensor.device());
}

}  // namespace lathe
