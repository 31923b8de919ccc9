// What an operation demands of its tensors. Each check that fails throws ShapeError with the operation, the argument,
// what was expected and what was found.
#pragma once

#include <initializer_list>
#include <string_view>

#include "core/tensor.h"

namespace lathe::kernels {

// expect("rms_norm_forward", "x", x).shape({T, H}).dtype(DType::bf16).rows_contiguous();
class Expect {
 public:
  Expect(std::string_view operation, std::string_view argument, const Tensor& tensor);  // throws when undefined
  const Expect& rank(int rank) const;
  const Expect& shape(const Shape& shape) const;
  const Expect& dtype(DType dtype) const;
  const Expect& dtype(std::initializer_list<DType> allowed) const;
  const Expect& contiguous() const;
  const Expect& rows_contiguous() const;  // the last stride is 1
  const Expect& device(Device device) const;

 private:
  [[noreturn]] void fail(const std::string& expected) const;
  std::string_view operation_, argument_;
  const Tensor& tensor_;
};

inline Expect expect(std::string_view operation, std::string_view argument, const Tensor& tensor) {
  return Expect(operation, argument, tensor);
}

// cu_seqlens i32 [S + 1]: starts at 0, never falls, ends at `tokens`.
void expect_cu_seqlens(std::string_view operation, const Tensor& cu_seqlens, int64_t tokens);

// f64 is the reference's dtype and has bodies on the CPU only: on another device it throws ShapeError.
void expect_body(std::string_view operation, std::string_view argument, const Tensor& tensor);

// For operations whose only bodies are the CPU's: anything else throws ResourceError.
void expect_cpu(std::string_view operation, const Tensor& tensor);

}  // namespace lathe::kernels
