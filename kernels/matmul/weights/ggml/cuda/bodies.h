// The CUDA bodies of weights in ggml's blocks. Pointers are device memory, but for indices on the host.
#pragma once

#include "core/device.h"
#include "kernels/arguments/indices.h"
#include "kernels/arguments/matrix.h"
#include "kernels/matmul/arguments.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/grouped.h"
#include "kernels/matmul/weights/ggml/tiles.h"

namespace lathe::kernels {

struct GgmlTiles {
  GgmlFormat format;
  const uint8_t* data;  // at a multiple of 16 bytes
  int64_t tile_bytes;
};

// What differs from weight to weight: in a kernel's arguments, or of many weights in device memory.
struct GgmlPlace {
  const uint8_t* tiles;
};

struct GgmlTilesProductArgs {
  ProductArgs product;  // rows_rows, f32 | bf16 | f16, few rows; right is not used
  GgmlTiles weight;
};

// Up to joined_most with one left operand and one format.
struct GgmlTilesProducts {
  const GgmlTilesProductArgs* of;
  int count;
};

struct GgmlRowsArgs {
  DType dtype;  // of out: f32 | bf16 | f16
  Matrix out;   // [rows, columns], rows at multiples of 16 bytes where `aligned`
  GgmlTiles weight;
  const Indices* ids;  // which rows; null: from first_row on
  int64_t first_row, rows, columns, weight_rows;
};

// product.cu: linear_forward of each, bf16 | f16, with the bits of the dequantised weight.
template <DeviceKind>
void ggml_product_tiles(const GgmlTilesProducts& products);
// product.cu: of gate and up, of one format and shape, without LoRA, bias or residual; their own out is not used.
template <DeviceKind>
void ggml_gated_tiles(const GgmlTilesProductArgs& gate, const GgmlTilesProductArgs& up, const GatedResult& result);
// grouped.cu
template <DeviceKind>
void grouped_blocks(const GroupedArgs& args, GgmlFormat format, int64_t tile_bytes);
// rows.cu
template <DeviceKind>
void ggml_table_rows(const TableRowsArgs& args, GgmlFormat format, int64_t tile_bytes);
// few_rows_f32.cu: as ggml_product_tiles of f32.
template <DeviceKind>
void ggml_few_rows_f32(const GgmlTilesProductArgs& args);
// rows.cu: rows of the dequantised weight, each element rounded once; NaN for an index that is none.
template <DeviceKind>
void ggml_rows(const GgmlRowsArgs& args);

}  // namespace lathe::kernels
