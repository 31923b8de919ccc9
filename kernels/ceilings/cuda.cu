#include "kernels/ceilings/cuda.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int blocks_per_multiprocessor = 4;
int grid() { return multiprocessors() * blocks_per_multiprocessor; }

// Four reads of 16 bytes under way in each thread before the first is written.
constexpr int reads = 4;
__global__ void __launch_bounds__(ceiling_block) copy_ceiling_kernel(uint4* out, const uint4* in, int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * ceiling_block;
  for (int64_t i = int64_t{blockIdx.x} * ceiling_block + threadIdx.x; i < count; i += reads * stride) {
    uint4 values[reads];
    LATHE_UNROLL
    for (int r = 0; r < reads; ++r)
      if (i + r * stride < count) values[r] = load_vector<uint4>(in + i + r * stride);
    LATHE_UNROLL
    for (int r = 0; r < reads; ++r)
      if (i + r * stride < count) store_vector(out + i + r * stride, values[r]);
  }
}

// Pairs of bf16 between 1 and 2, other ones in each lane: constant operands need less power and run faster than data
// does.
__device__ uint32_t operand(int i) {
  const uint32_t mixed = (threadIdx.x * 2654435761u) ^ (static_cast<uint32_t>(i) * 40503u);
  return 0x3f803f80u | (mixed & 0x007f007fu);
}

__global__ void __launch_bounds__(ceiling_block) multiply_bf16_ceiling_kernel(float* out, int rounds) {
  const uint32_t a[4] = {operand(0), operand(1), operand(2), operand(3)}, b[2] = {operand(4), operand(5)};
  float sums[ceiling_chains][4] = {};
  for (int round = 0; round < rounds; ++round) {
    LATHE_UNROLL
    for (int c = 0; c < ceiling_chains; ++c) mma_m16n8k16_bf16(sums[c], a, b);
  }
  float total = 0.0f;
  LATHE_UNROLL
  for (int c = 0; c < ceiling_chains; ++c) total += sums[c][0] + sums[c][1] + sums[c][2] + sums[c][3];
  out[int64_t{blockIdx.x} * ceiling_block + threadIdx.x] = total;
}

__global__ void __launch_bounds__(ceiling_block) multiply_f32_ceiling_kernel(float* out, int rounds, float factor) {
  float sums[ceiling_chains];
  LATHE_UNROLL
  for (int c = 0; c < ceiling_chains; ++c) sums[c] = static_cast<float>(threadIdx.x + c);
  for (int round = 0; round < rounds; ++round) {
    LATHE_UNROLL
    for (int c = 0; c < ceiling_chains; ++c) sums[c] = fmaf(sums[c], factor, 0.25f);
  }
  float total = 0.0f;
  LATHE_UNROLL
  for (int c = 0; c < ceiling_chains; ++c) total += sums[c];
  out[int64_t{blockIdx.x} * ceiling_block + threadIdx.x] = total;
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void copy_ceiling(const CopyCeilingCuda& args) {
  launch({.name = "copy_ceiling", .grid = dim3(static_cast<unsigned>(2 * grid())), .block = dim3(ceiling_block)},
         copy_ceiling_kernel, static_cast<uint4*>(args.out), static_cast<const uint4*>(args.in), args.bytes / 16);
}
template void copy_ceiling<DeviceKind::LATHE_CUDA_NAMESPACE>(const CopyCeilingCuda&);

template <DeviceKind>
void multiply_bf16_ceiling(const MultiplyCeilingCuda& args) {
  launch({.name = "multiply_bf16_ceiling", .grid = dim3(static_cast<unsigned>(grid())), .block = dim3(ceiling_block)},
         multiply_bf16_ceiling_kernel, args.out, args.rounds);
}
template void multiply_bf16_ceiling<DeviceKind::LATHE_CUDA_NAMESPACE>(const MultiplyCeilingCuda&);

template <DeviceKind>
void multiply_f32_ceiling(const MultiplyCeilingCuda& args) {
  launch({.name = "multiply_f32_ceiling", .grid = dim3(static_cast<unsigned>(grid())), .block = dim3(ceiling_block)},
         multiply_f32_ceiling_kernel, args.out, args.rounds, 0.75f);
}
template void multiply_f32_ceiling<DeviceKind::LATHE_CUDA_NAMESPACE>(const MultiplyCeilingCuda&);

template <DeviceKind>
void ceiling_thread_count(const CeilingThreadsCuda& args) {
  *args.threads = int64_t{grid()} * ceiling_block;
}
template void ceiling_thread_count<DeviceKind::LATHE_CUDA_NAMESPACE>(const CeilingThreadsCuda&);

}  // namespace lathe::kernels
