// Bound by bandwidth: 20 bytes move for an element. The arithmetic is that of a CPU with fused multiply-adds.
#include "kernels/cuda/elementwise.h"
#include "kernels/lion/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <bool aligned>
__global__ void __launch_bounds__(elementwise_threads) lion_kernel(LionArgs args, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  Group weight = load_group<aligned>(args.weight + column, count);
  const Group grad = load_group<aligned>(args.grad + column, count);
  Group m = load_group<aligned>(args.m + column, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    const float g = args.grad_scale * grad.at[j];
    const float direction = fmaf(args.beta1, m.at[j], args.one_less_beta1 * g);
    const float step = direction > 0.0f ? args.learning_rate : direction < 0.0f ? -args.learning_rate : 0.0f;
    weight.at[j] = args.keep_weight * weight.at[j] - step;
    m.at[j] = fmaf(args.beta2, m.at[j], args.one_less_beta2 * g);
  }
  store_group<aligned>(args.weight + column, weight, count);
  store_group<aligned>(args.m + column, m, count);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void lion_range(const LionArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  const bool aligned = rows_aligned(args.weight, 0) && rows_aligned(args.grad, 0) && rows_aligned(args.m, 0);
  launch_elementwise("lion", 1, args.end, aligned ? lion_kernel<true> : lion_kernel<false>, args);
}
template void lion_range<DeviceKind::LATHE_CUDA_NAMESPACE>(const LionArgs&);

}  // namespace lathe::kernels
