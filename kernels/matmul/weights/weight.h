// A weight [N, K] that a product reads: dense, packed and frozen, or quantised and frozen (by us, or a GGUF file's).
#pragma once

#include <utility>
#include <variant>

#include "core/tensor.h"
#include "kernels/matmul/weights/ggml/ggml_weight.h"
#include "kernels/matmul/weights/packed/packed_weight.h"
#include "kernels/matmul/weights/quantized_weight.h"

namespace lathe::kernels {

// Shares its storage: cheap to copy.
class Weight {
 public:
  Weight();  // undefined
  // Rows may lie apart, their elements are contiguous. A product packs it on the way: the bits of the packed weight.
  Weight(Tensor dense);
  Weight(PackedWeight packed);
  // Stands for the weight dequantised to the dtype of the other operand.
  Weight(QuantizedWeight quantized);
  // A product multiplies integers (weights/ggml/ggml_weight.h).
  Weight(GgmlWeight ggml);
  // In weight.cpp, because inline they would put a page of code into every caller, in which GCC 12 believes to see
  // uninitialised members.
  Weight(const Weight& other);
  Weight(Weight&& other) noexcept;
  Weight& operator=(const Weight& other);
  Weight& operator=(Weight&& other) noexcept;
  ~Weight();

  bool defined() const;
  int64_t rows() const;
  int64_t columns() const;
  // Of a quantised weight f32, in which its values are exact; a product rounds them to the dtype of the other operand.
  DType dtype() const;
  Device device() const;
  int64_t nbytes() const;

  // The weight where it is of that kind, or null.
  const Tensor* dense() const { return std::get_if<Tensor>(&weight_); }
  const PackedWeight* packed() const { return std::get_if<PackedWeight>(&weight_); }
  const QuantizedWeight* quantized() const { return std::get_if<QuantizedWeight>(&weight_); }
  const GgmlWeight* ggml() const { return std::get_if<GgmlWeight>(&weight_); }
  // visitor(const Tensor& | const PackedWeight& | const QuantizedWeight& | const GgmlWeight&).
  template <class Visitor>
  decltype(auto) visit(Visitor&& visitor) const {
    return std::visit(std::forward<Visitor>(visitor), weight_);
  }

 private:
  std::variant<Tensor, PackedWeight, QuantizedWeight, GgmlWeight> weight_;
};

}  // namespace lathe::kernels
