// What the bodies of nf4.h read and write.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/dtype.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

struct Nf4QuantizeArgs {
  DType dtype;  // of weight: f32 | bf16 | f16
  const void* weight;
  int64_t numel, block_size;
  uint8_t* codes;
  float* absmax;
  int64_t block_begin, block_end;
};

struct Nf4NestArgs {
  const float* absmax;
  const float* offset;      // one number
  const float* thresholds;  // of the signed dynamic map, on the host
  int64_t count;            // of absmax
  uint8_t* codes;
  float* nested_absmax;
  int64_t block_begin, block_end;  // nested blocks
};

struct Nf4OffsetArgs {
  const float* absmax;
  int64_t count;
  float* offset;
};

// Where a block's scale comes from; see nf4.h.
struct Nf4ScaleArgs {
  const float* absmax;  // null: nested
  const uint8_t* codes;
  const float* nested_absmax;
  const float* offset;
  const float* map;  // of 256 values, on the host; null when absmax is there
};

struct Nf4DequantizeArgs {
  DType dtype;  // of out: f32 | bf16 | f16
  void* out;    // of element `first`
  const uint8_t* codes;
  Nf4ScaleArgs scales;
  int64_t block_size;
  int64_t first;       // of the elements that are wanted
  int64_t begin, end;  // elements
};

// cpu.cpp: a range of blocks or of elements.
template <Isa>
void nf4_quantize_blocks(Nf4QuantizeArgs args);
template <Isa>
void nf4_nest_blocks(Nf4NestArgs args);
template <Isa>
void nf4_dequantize_elements(Nf4DequantizeArgs args);

// cuda.cu: all blocks or elements, in the device's memory but for what is on the host.
template <DeviceKind>
void nf4_quantize_blocks(const Nf4QuantizeArgs& args);
template <DeviceKind>
void nf4_offset_of(const Nf4OffsetArgs& args);
template <DeviceKind>
void nf4_nest_blocks(const Nf4NestArgs& args);
template <DeviceKind>
void nf4_dequantize_elements(const Nf4DequantizeArgs& args);

}  // namespace lathe::kernels
