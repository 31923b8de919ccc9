// Bound by bandwidth: 12 bytes move for an element. The arithmetic is that of a CPU with fused multiply-adds.
#include "kernels/cuda/elementwise.h"
#include "kernels/sgd/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <bool aligned>
__global__ void __launch_bounds__(elementwise_threads) sgd_kernel(SgdArgs args, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  Group weight = load_group<aligned>(args.weight + column, count);
  const Group grad = load_group<aligned>(args.grad + column, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j)
    weight.at[j] = fmaf(-args.step_size, grad.at[j], args.keep_weight * weight.at[j]);
  store_group<aligned>(args.weight + column, weight, count);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void sgd_range(const SgdArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  const bool aligned = rows_aligned(args.weight, 0) && rows_aligned(args.grad, 0);
  launch_elementwise("sgd", 1, args.end, aligned ? sgd_kernel<true> : sgd_kernel<false>, args);
}
template void sgd_range<DeviceKind::LATHE_CUDA_NAMESPACE>(const SgdArgs&);

}  // namespace lathe::kernels
