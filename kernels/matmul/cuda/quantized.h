// The CUDA bodies for a few rows and a quantised weight that lies as bitsandbytes stores it. Pointers are device
// memory, except the dynamic map of the nested scales.
#pragma once

#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/product.h"
#include "kernels/matmul/weights/formats.h"
#include "kernels/nf4/bodies.h"

namespace lathe::kernels {

struct QuantizedProductArgs {
  ProductArgs product;  // rows_rows, bf16 | f16 (f32 where said), few rows, k a multiple of 64; right is not used
  QuantizedFormat format;
  const void* codes;         // at a multiple of 16 bytes
  Nf4ScaleArgs nf4_scales;   // nf4
  int64_t block_size;        // nf4: a power of two
  const float* int8_scales;  // int8: [n, k / 64]
};

// Where the codes of a weight lie and what differs from weight to weight beside them: in a kernel's arguments, or of
// many weights in device memory.
struct Nf4Place {
  const uint8_t* codes;
  Nf4ScaleArgs scales;  // in device memory the map is not used
};
struct Int8Place {
  const uint8_t* codes;
  const float* scales;  // [n, k / 64]
};

// Up to joined_most with one left operand and one format.
struct QuantizedProducts {
  const QuantizedProductArgs* of;
  int count;
};

// Rows that read codes, of f32 and of 16 bits (codes_product.cuh).
inline constexpr int64_t most_fused_rows = 16, most_fused_rows_16_bit = 64;

// quantized.cu: linear_forward of each.
template <DeviceKind>
void quantized_product_tiles(const QuantizedProducts& products);
// quantized.cu: of gate and up, of one format and shape, without LoRA, bias or residual; their own out is not used.
template <DeviceKind>
void quantized_gated_tiles(const QuantizedProductArgs& gate, const QuantizedProductArgs& up, const GatedResult& result);
// few_rows_f32.cu: as quantized_product_tiles of f32, with the bits of product_tiles_f32 and the dequantised weight.
template <DeviceKind>
void quantized_few_rows_f32(const QuantizedProductArgs& args);
// quantized_gemv.cu: quantized_gemv, m ≤ 4.
template <DeviceKind>
void quantized_gemv_columns(const QuantizedProductArgs& args);

}  // namespace lathe::kernels
