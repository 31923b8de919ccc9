// A weight [N, K] that a product reads: dense, packed and frozen, or quantised and frozen (by us, or a GGUF file's).
#pragma once

#include <memory>
#include <utility>
#include <variant>

#include "core/tensor.h"
#include "kernels/matmul/weights/ggml/ggml_weight.h"
#include "kernels/matmul/weights/packed/packed_weight.h"
#include "kernels/matmul/weights/quantized_weight.h"

namespace lathe::kernels {

// Never changes, and copies share it: a decode step hands hundreds on.
class Weight {
 public:
  Weight() = default;  // undefined
  // Rows may lie apart, their elements are contiguous. A product packs it on the way: the bits of the packed weight.
  Weight(Tensor dense);
  Weight(PackedWeight packed);
  // Stands for the weight dequantised to the dtype of the other operand.
  Weight(QuantizedWeight quantized);
  // On the CPU a product multiplies integers, on devices it stands for the dequantised weight
  // (weights/ggml/ggml_weight.h).
  Weight(GgmlWeight ggml);

  bool defined() const;
  int64_t rows() const;
  int64_t columns() const;
  // Of a quantised weight f32, in which its values are exact; a product rounds them to the dtype of the other operand.
  DType dtype() const;
  Device device() const;
  int64_t nbytes() const;

  // The weight where it is of that kind, or null.
  const Tensor* dense() const { return std::get_if<Tensor>(&kind()); }
  const PackedWeight* packed() const { return std::get_if<PackedWeight>(&kind()); }
  const QuantizedWeight* quantized() const { return std::get_if<QuantizedWeight>(&kind()); }
  const GgmlWeight* ggml() const { return std::get_if<GgmlWeight>(&kind()); }
  // visitor(const Tensor& | const PackedWeight& | const QuantizedWeight& | const GgmlWeight&).
  template <class Visitor>
  decltype(auto) visit(Visitor&& visitor) const {
    return std::visit(std::forward<Visitor>(visitor), kind());
  }

 private:
  using Kind = std::variant<Tensor, PackedWeight, QuantizedWeight, GgmlWeight>;
  static const Kind undefined;
  const Kind& kind() const { return kind_ ? *kind_ : undefined; }

  std::shared_ptr<const Kind> kind_;
};

}  // namespace lathe::kernels
