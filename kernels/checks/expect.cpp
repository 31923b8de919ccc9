#include "kernels/checks/expect.h"

#include <string>

#include "core/error.h"

namespace lathe::kernels {
namespace {

std::string text(const Shape& shape) {
  std::string result = "[";
  for (int i = 0; i < shape.rank(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
  return result + "]";
}

}  // namespace

Expect::Expect(std::string_view operation, std::string_view argument, const Tensor& tensor)
    : operation_(operation), argument_(argument), tensor_(tensor) {
  if (!tensor.defined()) fail("a tensor");
}

const Expect& Expect::rank(int rank) const {
  if (tensor_.rank() != rank) fail(std::to_string(rank) + " dimension" + (rank == 1 ? "" : "s"));
  return *this;
}

const Expect& Expect::shape(const Shape& shape) const {
  if (!(tensor_.shape() == shape)) fail("shape " + text(shape));
  return *this;
}

const Expect& Expect::dtype(DType dtype) const { return this->dtype({dtype}); }

const Expect& Expect::dtype(std::initializer_list<DType> allowed) const {
  std::string names;
  for (DType dtype : allowed) {
    if (tensor_.dtype() == dtype) return *this;
    names += (names.empty() ? "" : " or ") + std::string(name_of(dtype));
  }
  fail("dtype " + names);
}

const Expect& Expect::contiguous() const {
  if (!tensor_.is_contiguous()) fail("contiguous memory (copy the view first)");
  return *this;
}

const Expect& Expect::rows_contiguous() const {
  if (tensor_.rank() == 0 || (tensor_.dim(-1) > 1 && tensor_.stride(-1) != 1)) {
    fail("a contiguous last dimension (copy the view first)");
  }
  return *this;
}

const Expect& Expect::device(Device device) const {
  if (!(tensor_.device() == device)) fail("a tensor on " + to_string(device));
  return *this;
}

void Expect::fail(const std::string& expected) const {
  throw ShapeError(std::string(operation_) + ": " + std::string(argument_) + " expects " + expected + ", found " +
                   (tensor_.defined() ? describe(tensor_) : std::string("an undefined tensor")));
}

void expect_cu_seqlens(std::string_view operation, const Tensor& cu_seqlens, int64_t tokens) {
  expect(operation, "cu_seqlens", cu_seqlens).rank(1).dtype(DType::i32).contiguous();
  const auto ends = cu_seqlens.span<int32_t>();
  const auto fail = [&](const std::string& reason) {
    throw ShapeError(std::string(operation) + ": cu_seqlens expects 0 ≤ … ≤ " + std::to_string(tokens) +
                     " (the tokens), rising from 0, found " + reason);
  };
  if (ends.empty()) fail("no entries");
  if (ends.front() != 0) fail(std::to_string(ends.front()) + " first");
  if (ends.back() != tokens) fail(std::to_string(ends.back()) + " last");
  for (size_t i = 1; i < ends.size(); ++i) {
    if (ends[i] < ends[i - 1]) fail(std::to_string(ends[i]) + " after " + std::to_string(ends[i - 1]));
  }
}

void expect_body(std::string_view operation, std::string_view argument, const Tensor& tensor) {
  if (tensor.dtype() != DType::f64 || tensor.device().kind == DeviceKind::cpu) return;
  throw ShapeError(std::string(operation) + ": " + std::string(argument) + " expects f64 on the cpu only, found " +
                   describe(tensor));
}

void expect_cpu(std::string_view operation, const Tensor& tensor) {
  if (tensor.device().kind != DeviceKind::cpu) {
    throw ResourceError(std::string(operation) + " has no body for " + to_string(tensor.device()) +
                        "; run it on the cpu (--device cpu)");
  }
}

}  // namespace lathe::kernels
