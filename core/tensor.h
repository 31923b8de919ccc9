// A tensor is plain data: shape, strides, dtype, device, a shared storage and an offset. Views are free.
// It knows nothing of gradients.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/dtype.h"
#include "core/memory.h"
#include "core/shape.h"

namespace lathe {

class Tensor {
 public:
  Tensor() = default;  // undefined: defined() is false
  // Contiguous. The tag is the enclosing MemoryTagScope's (activations outside any).
  static Tensor empty(const Shape& shape, DType dtype, Device device = {}, std::optional<MemoryTag> tag = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {}, std::optional<MemoryTag> tag = {});
  // Contiguous view of a storage from a byte offset. Throws ShapeError when it does not fit or when the first
  // element is not aligned to its size (a tensor inside a mapped file: copy it instead).
  static Tensor from_storage(std::shared_ptr<Storage> storage, int64_t byte_offset, const Shape& shape, DType dtype);
  // A CPU tensor holding a copy of `values`.
  template <class T>
  static Tensor of(std::span<const T> values, const Shape& shape, std::optional<MemoryTag> tag = {});

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t stride(int i) const { return strides_[static_cast<size_t>(i < 0 ? i + rank() : i)]; }  // in elements
  int64_t numel() const { return shape_.numel(); }
  int64_t nbytes() const { return numel() * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device{}; }
  bool is_contiguous() const;

  // Typed access; throws ShapeError when T is not the dtype. Strides are the caller's business.
  template <class T>
  T* data() const {
    check_dtype(dtype_of<T>);
    return static_cast<T*>(raw());
  }
  template <class T>
  std::span<T> span() const {  // contiguous tensors only
    check_contiguous();
    return {data<T>(), static_cast<size_t>(numel())};
  }
  void* raw() const { return static_cast<char*>(storage_->data()) + byte_offset_; }

  // Views of the same storage; negative dimensions and indices count from the end, [begin, end) lies within the
  // extent. view() needs a contiguous tensor; in a braced list one extent may be -1. All throw ShapeError.
  Tensor view(const Shape& shape) const;
  Tensor view(std::initializer_list<int64_t> dims) const;
  Tensor slice(int dimension, int64_t begin, int64_t end) const;
  Tensor select(int dimension, int64_t index) const;
  Tensor transpose(int a, int b) const;

  // A contiguous copy in fresh memory on the same device (CPU memory only; other devices copy through kernels).
  Tensor clone(std::optional<MemoryTag> tag = {}) const;

  const std::shared_ptr<Storage>& storage() const { return storage_; }
  int64_t byte_offset() const { return byte_offset_; }
  uint64_t version() const { return storage_ ? storage_->version() : 0; }
  void bump_version() const { storage_->bump_version(); }

 private:
  void check_dtype(DType wanted) const;
  void check_contiguous() const;

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  std::array<int64_t, Shape::max_rank> strides_{};
  int64_t byte_offset_ = 0;
  DType dtype_ = DType::f32;
};

std::string describe(const Tensor& tensor);  // "bf16[2, 3] on cpu"

template <class T>
Tensor Tensor::of(std::span<const T> values, const Shape& shape, std::optional<MemoryTag> tag) {
  Tensor result = empty(shape, dtype_of<T>, {}, tag);
  if (result.numel() != static_cast<int64_t>(values.size())) result.view(Shape{static_cast<int64_t>(values.size())});
  if (!values.empty()) std::memcpy(result.raw(), values.data(), values.size_bytes());
  return result;
}

}  // namespace lathe
