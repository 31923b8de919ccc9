// A frozen weight [N, K] in nf4 or int8 blocks, as products read it (WeightView in matmul.h). A product with activations of some
// dtype is the product with the weight dequantised to that dtype: the same bits, for any number of rows.
//
// On the CPU all products read the codes: up to four rows in registers, more by way of a slab of a panel. On a device up to 16 rows of
// bf16 or f16 do; more rows, f32 and the gradient of the input dequantise the weight into workspace [N, K] for one product, which the
// dense tiles then read faster than codes. quantized_gemv.h is faster for up to four rows there, and other bits.
//
// K is a multiple of 32, and every 32 neighbours along it from a multiple of 32 on share a scale (as they do when K is a multiple of
// nf4's block size, or that one of K's factors); ShapeError otherwise: such a weight stays dense.
#pragma once

#include "kernels/int8_blocks/int8_blocks.h"
#include "kernels/nf4/nf4.h"

namespace lathe::kernels {

enum class QuantizedFormat : uint8_t { nf4, int8 };

class QuantizedWeight {
 public:
  QuantizedWeight() = default;
  // On the CPU the codes are put into panels, as PackedWeight's: panel p holds rows [32 p, 32 p + 32), in groups of 64 or 32 along k:
  // a group is the 32 rows' scales in f32, then its codes, two neighbours along k at a time (cpu/gemm.h says where). nf4 takes
  // 4.5 bits for a weight, whether or not its scales were nested; int8 8.5.
  // On cuda and simt, and with f64 scales (the reference), the tensors given are kept as they are.
  static QuantizedWeight pack(const Nf4Weight& weight, MemoryTag tag = MemoryTag::weights);
  static QuantizedWeight pack(const Int8Weight& weight, MemoryTag tag = MemoryTag::weights);

  bool defined() const { return rows_ > 0; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  QuantizedFormat format() const { return format_; }
  Device device() const;
  int64_t nbytes() const;

  bool in_panels() const { return panels_.defined(); }
  const Tensor& panels() const { return panels_; }  // u8 [panels, bytes of one]
  int64_t group() const { return group_; }
  // Defined where the weight is not in panels.
  const Nf4Weight& nf4() const { return nf4_; }
  const Int8Weight& int8() const { return int8_; }

  // out [count, K] f32 | bf16 | f16 | f64, contiguous: rows [first_row, first_row + count), each element rounded once.
  void dequantize(const Tensor& out, int64_t first_row = 0) const;

 private:
  int64_t rows_ = 0, columns_ = 0, group_ = 0;
  QuantizedFormat format_ = QuantizedFormat::nf4;
  Tensor panels_;
  Nf4Weight nf4_;
  Int8Weight int8_;
};

}  // namespace lathe::kernels
