// A frozen weight [N, K] in blocks of codes, as products read it. A product with activations of some dtype is the
// product with the weight dequantised to that dtype: the same bits, for any number of rows.
//
// On the CPU all products read the codes: for up to four rows they are decoded in registers, for more into a panel of
// words that all tiles share. On a device up to 64 rows of 16 bits, or 16 of f32, read them. More rows dequantise bands
// of the weight into workspace (kernels/matmul/bands.h), the gradient of the input all of it for one product: dense
// tiles then read it faster than codes.
// quantized_gemv.h is for up to four rows of 16 bits there, and gives other bits.
//
// K is a multiple of 32, and every 32 neighbours along it from a multiple of 32 on share a scale (as they do when K is
// a multiple of the block size, or that one of K's factors); ShapeError otherwise: such a weight stays dense.
#pragma once

#include <variant>

#include "core/tensor.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/weights/formats.h"

namespace lathe::kernels {

// A weight as one of the formats stores it; the alternatives are in the order of QuantizedFormat.
template <class Formats>
struct StoredAs;
template <class... Formats>
struct StoredAs<std::tuple<Formats...>> {
  using Variant = std::variant<typename Formats::Stored...>;
};
using StoredWeight = StoredAs<QuantizedFormats>::Variant;

class QuantizedWeight {
 public:
  QuantizedWeight() = default;
  // On the CPU the codes are put into panels (weights/panels.h). On cuda and simt, and with f64 scales (the reference),
  // the tensors given are kept as they are.
  static QuantizedWeight pack(const StoredWeight& weight, MemoryTag tag = MemoryTag::weights);
  // weight [N, K] f32 | bf16 | f16, quantised as the format does by default and packed.
  static QuantizedWeight quantize(const Tensor& weight, QuantizedFormat format, MemoryTag tag = MemoryTag::weights);

  // Whether a weight of so many columns in blocks of `block_size` is one that products read.
  static bool suits(int64_t columns, int64_t block_size);

  bool defined() const { return rows_ > 0; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  QuantizedFormat format() const { return static_cast<QuantizedFormat>(stored_.index()); }
  Device device() const;
  int64_t nbytes() const;
  // Neighbours along k that share a scale, from a multiple of it on: 64 or 32.
  int64_t group() const { return group_; }

  bool in_panels() const { return panels_.defined(); }
  // u8 [panels, bytes of one], where the weight is in panels; otherwise `stored` has its tensors.
  const Tensor& panels() const { return panels_; }
  const StoredWeight& stored() const { return stored_; }
  // The panels as a product reads them.
  WeightPanels product_panels() const;

  // out [count, K] f32 | bf16 | f16 | f64, contiguous: rows [first_row, first_row + count), each element rounded once.
  void dequantize(const Tensor& out, int64_t first_row = 0) const;

 private:
  int64_t rows_ = 0, columns_ = 0, group_ = 0;
  Tensor panels_;
  StoredWeight stored_;  // without tensors where they are in panels
};

}  // namespace lathe::kernels
