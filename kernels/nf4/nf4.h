// nf4, the 4-bit normal float of QLoRA (Dettmers et al. 2023), to the exact numbers of bitsandbytes 0.50.
//
// A tensor, flattened row-major, is cut into blocks of `block_size` elements (the last may be shorter). With absmax the
// largest magnitude of a block, element x becomes the code of the codebook value nearest to x · (1/absmax): the number
// of thresholds, the midpoints of neighbours in f32 (codebook.h), that lie below it. Two codes share a byte, the first
// element in the high half; an odd element at the end has code 7, zero, beside it. A code stands for codebook[code] ·
// scale(block), multiplied in f32 and rounded once to the dtype wanted. Weights are finite. A block of zeros comes back
// as zeros.
//
// scale(block) is absmax[block], f32; or, doubly quantised ("nested"), with 4.127 bits for a weight instead of 4.5:
//   offset = mean(absmax); absmax − offset in blocks of 256, coded by the signed dynamic map
//   (kernels/quantization/dynamic_map.h);
//   scale(block) = map[absmax_codes[block]] · nested_absmax[block / 256] + offset, rounded after each step.
// bitsandbytes takes the mean in f32 in an order that differs with the machine; here it is summed in f64, on every
// device, and rounded once: within an f32 rounding or two of bitsandbytes'. From the same offset every bit is the same.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace lathe::kernels {

inline constexpr int64_t nf4_nested_block = 256;

// A quantised matrix [rows, columns], in the layout of bitsandbytes' checkpoints: `codes` is X.weight, absmax or
// absmax_codes X.weight.absmax. All on one device. f32 tensors are f64 in the f64 reference.
struct Nf4Weight {
  int64_t rows = 0, columns = 0;
  int64_t block_size = 64;  // 32, 64, …, 4096
  Tensor codes;             // u8, ⌈rows · columns / 2⌉ elements of any shape, contiguous
  Tensor absmax;            // f32 [blocks], or undefined, and then:
  Tensor absmax_codes;      // u8 [blocks]
  Tensor nested_absmax;     // f32 [⌈blocks / 256⌉]
  Tensor offset;            // f32 [1]

  int64_t numel() const { return rows * columns; }
  int64_t blocks() const { return (numel() + block_size - 1) / block_size; }
  bool nested() const { return !absmax.defined(); }
  Device device() const { return codes.device(); }
  int64_t nbytes() const;  // of all its tensors
};

enum class Nf4Scales : uint8_t { plain, nested };

// Uninitialised tensors for a weight of that shape. ConfigError for a block size that is not one of those above.
Nf4Weight allocate_nf4(int64_t rows, int64_t columns, int64_t block_size, Nf4Scales scales, Device device = {},
                       MemoryTag tag = MemoryTag::weights);

// Throws ShapeError when the tensors do not make a weight of that shape on one device.
void check_nf4(const char* operation, const Nf4Weight& weight);

// weight [rows, columns] f32 | bf16 | f16 (f64 in the reference, which rounds each element to f32), contiguous, in
// memory of its own. Allocates what it returns, and the scales of the first step while it nests them.
Nf4Weight quantize_nf4(const Tensor& weight, int64_t block_size = 64, Nf4Scales scales = Nf4Scales::nested,
                       MemoryTag tag = MemoryTag::weights);

// The steps of it. codes and absmax as in Nf4Weight.
void nf4_quantize(const Tensor& codes, const Tensor& absmax, const Tensor& weight, int64_t block_size);
// offset [1] = mean(absmax).
void nf4_offset(const Tensor& offset, const Tensor& absmax);
// absmax f32 [blocks] and an offset in; absmax_codes and nested_absmax out.
void nf4_nest(const Tensor& absmax_codes, const Tensor& nested_absmax, const Tensor& absmax, const Tensor& offset);

// out [count, columns] f32 | bf16 | f16 (f64 in the reference), contiguous: rows [first_row, first_row + count).
void nf4_dequantize(const Tensor& out, const Nf4Weight& weight, int64_t first_row = 0);

}  // namespace lathe::kernels
