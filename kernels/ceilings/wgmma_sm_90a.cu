// The tensor cores' peak on sm_90a, which mma.sync reaches two thirds of: wgmma over tiles that stay where they are.
#include "kernels/ceilings/cuda.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/tile/bulk_operand.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// A left operand for each of two warpgroups, and one right one.
struct Operands {
  BulkOperand<bf16_t, 128, Major::k> left;
  BulkOperand<bf16_t, 256, Major::k> right;
};
using OneBlock = BlockResources<ceiling_block, 1, sizeof(Operands), Cards::sm_90a>;
static_assert(ceiling_block == 256 && ceiling_chains % 4 == 0);

__global__ void __launch_bounds__(OneBlock::threads, OneBlock::blocks)
    multiply_wgmma_ceiling_kernel(OneBlock, float* out, int rounds) {
  Operands& operands = *swizzled_shared<Operands>();
  // bf16 between 1 and 2, as the ceiling of mma.sync has them.
  uint32_t* const words = reinterpret_cast<uint32_t*>(&operands);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(Operands) / 4); i += ceiling_block)
    words[i] = 0x3f803f80u | (static_cast<uint32_t>(i) * 2654435761u >> 8 & 0x007f007fu);
  fence_proxy_async();
  __syncthreads();  // the operands are there
  const int warpgroup = __shfl_sync(full_warp, static_cast<int>(threadIdx.x) / 128, 0);
  const auto left = operands.left.from_row(64 * warpgroup), right = operands.right.from_row(0);
  float sums[128];
  for (int round = 0; round < rounds; ++round) {
    wgmma_fence();
    LATHE_UNROLL
    for (int c = 0; c < ceiling_chains; ++c)
      wgmma(sums, left.next_k16(c % 4), right.next_k16(c % 4), round > 0 || c > 0);
    wgmma_commit();
    wgmma_wait<1>();
  }
  wgmma_wait<0>(sums);
  float total = 0.0f;
  LATHE_UNROLL
  for (float sum : sums) total += sum;
  out[int64_t{blockIdx.x} * ceiling_block + threadIdx.x] = total;
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
bool has_wgmma_ceiling() {
  return runs_sm_90a();
}
template bool has_wgmma_ceiling<DeviceKind::LATHE_CUDA_NAMESPACE>();

template <DeviceKind>
void multiply_wgmma_ceiling(const MultiplyCeilingCuda& args) {
  int64_t threads = 0;
  ceiling_thread_count<DeviceKind::LATHE_CUDA_NAMESPACE>({&threads});
  launch("multiply_wgmma_ceiling", dim3(static_cast<unsigned>(threads / ceiling_block)), multiply_wgmma_ceiling_kernel,
         args.out, args.rounds);
}
template void multiply_wgmma_ceiling<DeviceKind::LATHE_CUDA_NAMESPACE>(const MultiplyCeilingCuda&);

}  // namespace lathe::kernels
