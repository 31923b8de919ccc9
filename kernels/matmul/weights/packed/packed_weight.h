// A frozen dense weight, stored once in the panels that products stream.
#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// A weight [rows N, columns K]. Panel p holds rows [p·width, (p+1)·width) with the row index fastest, so that a product
// broadcasts x and reads weights in order (width: gemm::panel_width).
// f32: [K][width]; bf16: [K/2][width][2] (K padded to even with zeros); f16: as f32. Rows past N are zeros. On cuda and
// simt it is the dense matrix, whose rows start at multiples of 16 bytes: tiles are put into order by the kernel.
class PackedWeight {
 public:
  PackedWeight() = default;
  // Uninitialised panels for a weight of that shape, to be filled with pack_rows. dtype f32, bf16, f16 or (on the CPU)
  // f64.
  static PackedWeight allocate(int64_t rows, int64_t columns, DType dtype, MemoryTag tag = MemoryTag::weights,
                               Device device = {});

  // The same in f32 on the CPU, for values that all are bf16 and an even number of columns: panels of bf16, which
  // products of f32 widen. Half the bytes, and the same bits.
  static PackedWeight allocate_widened(int64_t rows, int64_t columns, MemoryTag tag = MemoryTag::weights);

  bool defined() const { return panels_.defined(); }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  DType dtype() const { return dtype_; }
  const Tensor& panels() const { return panels_; }
  Device device() const { return panels_.device(); }
  int64_t nbytes() const { return panels_.nbytes(); }
  // The panels as a product reads them. f32 and bf16 on the CPU.
  WeightPanels product_panels() const;
  // The matrix [N, K] with contiguous rows. Devices only: on the CPU it lies in panels (ShapeError).
  Tensor dense() const;
  // The same panels, read as f32. f16 on the CPU only.
  PackedWeight as_f32() const;

  // Rounds and stores rows [first, first + count) given in f32, row-major with `columns` each. Different rows may be
  // packed from different threads at once. Fast when first and count are multiples of 16, word by word otherwise. On a
  // device the rows are rounded here, copied over, and have arrived on return.
  void pack_rows(int64_t first, int64_t count, const float* rows);
  // The reverse, into f32.
  void unpack_rows(int64_t first, int64_t count, float* rows) const;

 private:
  friend PackedWeight pack_weight(const Tensor& weight, DType dtype, MemoryTag tag);
  explicit PackedWeight(const Tensor& dense)
      : rows_(dense.dim(0)), columns_(dense.dim(1)), dtype_(dense.dtype()), panels_(dense) {}

  int64_t rows_ = 0, columns_ = 0;
  DType dtype_ = DType::f32;
  Tensor panels_;
};

// Packs a dense [N, K] tensor of any floating dtype, on its device. There it is the tensor itself, not a copy, when it
// has the dtype already.
PackedWeight pack_weight(const Tensor& weight, DType dtype, MemoryTag tag = MemoryTag::weights);

}  // namespace lathe::kernels
