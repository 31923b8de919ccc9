// What a device gives at most: kernels that do nothing but move bytes or multiply. lathe-bench measures the other
// kernels' shares of it.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace lathe::kernels {

// Queues a copy, every byte read once and written once. out and in: contiguous, of one size, a multiple of 64 bytes, on
// one device.
void copy_at_full_bandwidth(const Tensor& out, const Tensor& in);

// Queue `rounds` rounds of products on every multiprocessor, and return the number of operations (a product and a sum
// are two): bf16 on the tensor cores (in registers; by wgmma, where the card has it, in shared memory) or f32 fused
// multiply-adds. out f32 [ceiling_threads(device)] takes what keeps the compiler from leaving them out.
double multiply_bf16_at_peak(const Tensor& out, int rounds);
double multiply_f32_at_peak(const Tensor& out, int rounds);
int64_t ceiling_threads(Device device);

}  // namespace lathe::kernels
