// The CUDA bodies of matmul.h. Pointers are device memory; strides are in elements, between rows.
#pragma once

#include "core/device.h"
#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// dense.cu: bf16, f16. Takes warpgroup_product() where that is faster.
template <DeviceKind>
void product_tiles(const ProductArgs& args);
// dense_sm_90a.cu: the same products with the same bits, by wgmma; only where takes_warpgroups(): the card has it, and
// the operands are large and lie as bulk copies want them.
template <DeviceKind>
bool takes_warpgroups(const ProductArgs& args);
template <DeviceKind>
void warpgroup_product(const ProductArgs& args);
// A product of f32 is chains of so many terms along k, added in order (gemm::k_block).
inline constexpr int f32_chain = 512;

// f32.cu: f32. `room`: as many floats as product_tiles_f32_room() says, where blocks share the chains of a tile; null
// where it says 0. It may be freed when the launch is queued.
template <DeviceKind>
int64_t product_tiles_f32_room(const ProductArgs& args);
template <DeviceKind>
void product_tiles_f32(const ProductArgs& args, float* room);
// few_rows_dense_f32.cu: the same of up to 16 rows by the rows of a weight, where these begin at multiples of 16 bytes;
// false, and nothing done, elsewhere.
template <DeviceKind>
bool few_rows_f32(const ProductArgs& args);

}  // namespace lathe::kernels
