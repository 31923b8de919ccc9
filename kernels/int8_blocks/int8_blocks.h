// Weights as 8-bit integers with a scale for each block of 64 along a row: near-lossless, 8.5 bits for a weight.
//
// scale = absmax/127 of the block (the last of a row may be shorter), code = x · (1/scale) rounded to the nearest
// integer, halves to the even one: −127 … 127. A code stands for code · scale, multiplied in f32 and rounded once to
// the dtype wanted. Weights are finite. A block of zeros has scale 0 and comes back as zeros.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace lathe::kernels {

inline constexpr int64_t int8_block = 64;

// A quantised matrix [rows, columns].
struct Int8Weight {
  Tensor codes;   // i8 [rows, columns], contiguous
  Tensor scales;  // f32 [rows, ⌈columns / 64⌉], contiguous (f64 in the f64 reference)

  int64_t rows() const { return codes.dim(0); }
  int64_t columns() const { return codes.dim(1); }
  Device device() const { return codes.device(); }
  int64_t nbytes() const { return codes.nbytes() + scales.nbytes(); }
};

Int8Weight allocate_int8(int64_t rows, int64_t columns, Device device = {}, MemoryTag tag = MemoryTag::weights);

// Throws ShapeError when the tensors do not make a weight on one device.
void check_int8(const char* operation, const Int8Weight& weight);

// weight [rows, columns] f32 | bf16 | f16 (f64 in the reference, which rounds each element to f32), rows contiguous.
Int8Weight quantize_int8(const Tensor& weight, MemoryTag tag = MemoryTag::weights);
void int8_quantize(const Int8Weight& out, const Tensor& weight);

// out [count, columns] f32 | bf16 | f16 (f64 in the reference), rows contiguous: rows [first_row, first_row + count).
void int8_dequantize(const Tensor& out, const Int8Weight& weight, int64_t first_row = 0);

}  // namespace lathe::kernels
