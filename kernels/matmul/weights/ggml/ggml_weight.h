// A frozen weight [N, K] in the blocks of a GGUF file. A product reads its codes as they are: 4.5 bits for a weight
// where the file has 4.5.
//
// On cuda and simt it stands for the weight dequantised to the activations' dtype: the same bits, for any number of
// rows. Up to 64 rows read the codes (of f32 16); more rows dequantise bands of the weight into workspace
// (kernels/matmul/bands.h), the gradient of the input all of it for one product.
//
// On the CPU linear_forward multiplies integers: rows of activations are quantised to 16 bits with a scale for each 32
// neighbours along k. A block's sum of products is exact; then out = fma(sum, d · scale, out) and, where the format has
// a minimum, out = fma(m, scale · Σ activations, out), in f32, blocks in order (K formats: with d · sc and −dmin · mn
// of the block; Q6_K: 16 neighbours at a time). So a row's bits do not depend on other rows, threads or the instruction
// set. These are not the bits of the dequantised weight's product, which is a little more exact.
//
// Why 16 bits. SmolLM2-135M, the mean loss of 14 texts (3.54 in f32 with the weights dequantised): with 16 bits it
// moves by at most 0.00005 for Q4_1, Q8_0, Q4_0, Q4_K_M, Q5_K_M and Q6_K files; with 8 bits by +0.0004, −0.0004 and,
// Q4_K_M, +0.0026. Where a weight comes from memory both take the same time; products of many rows would be up to twice
// as fast with 8 bits where the CPU multiplies bytes, and are 1.6 times llama.cpp's speed with 16
// (docs/performance.md).
#pragma once

#include <cstddef>
#include <span>

#include "core/tensor.h"
#include "kernels/matmul/weights/ggml/ggml_formats.h"

namespace lathe::kernels {

class Upload;

// Rows as the file has them: each is columns / elements-of-a-block blocks of the format, wherever it lies.
struct GgmlRows {
  GgmlFormat format = GgmlFormat::q8_0;
  int64_t columns = 0;
  std::span<const std::byte* const> rows;
};

class GgmlWeight {
 public:
  GgmlWeight() = default;
  // Copies the blocks into the order in which products stream them. `dtype` f32 | bf16 | f16 | f64 is that of the
  // activations that the weight is for. ShapeError for columns that are not whole blocks.
  static GgmlWeight pack(const GgmlRows& rows, DType dtype, MemoryTag tag = MemoryTag::weights);
  // The same on cuda or simt, through the buffers of `upload` (whose publish() is the caller's). dtype not f64.
  static GgmlWeight send(const GgmlRows& rows, DType dtype, Device device, Upload& upload,
                         MemoryTag tag = MemoryTag::weights);

  bool defined() const { return rows_ > 0; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  DType dtype() const { return dtype_; }
  GgmlFormat format() const { return format_; }
  Device device() const { return panels_.device(); }
  int64_t nbytes() const { return panels_.nbytes(); }
  // u8 [panels, bytes of one] (ggml_formats.h), on devices [tiles, bytes of one] (tiles.h).
  const Tensor& panels() const { return panels_; }
  // The same codes, for activations of another dtype.
  GgmlWeight for_dtype(DType dtype) const;

  // out [count, K] of any floating dtype (on devices not f64), rows contiguous: rows [first_row, first_row + count) as
  // the file's reader gives them in f32, rounded once.
  void dequantize(const Tensor& out, int64_t first_row = 0) const;

 private:
  static GgmlWeight described(const GgmlRows& rows, DType dtype);
  void dequantize_row(int64_t row, float* values) const;

  int64_t rows_ = 0, columns_ = 0;
  DType dtype_ = DType::f32;
  GgmlFormat format_ = GgmlFormat::q8_0;
  Tensor panels_;
};

}  // namespace lathe::kernels
