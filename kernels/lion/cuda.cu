// Bound by bandwidth: 20 bytes move for an element. The arithmetic is that of a CPU with fused multiply-adds.
#include "kernels/cuda/tensor_list.h"
#include "kernels/lion/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <bool aligned>
__global__ void __launch_bounds__(list_threads)
    lion_kernel(TensorList<LionTensor> list, LionConstants c, const double* factor) {
  const auto [tensor, first, count] = elements_of_thread(list);
  if (count == 0 || !take_factor(factor, c.grad_scale)) return;
  const LionTensor a = list.tensors[tensor];
  Group weight = load_group<aligned>(a.weight + first, count);
  const Group grad = load_group<aligned>(a.grad + first, count);
  Group m = load_group<aligned>(a.m + first, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    const float g = c.grad_scale * grad.at[j];
    const float direction = fmaf(c.beta1, m.at[j], c.one_less_beta1 * g);
    const float step = direction > 0.0f ? c.learning_rate : direction < 0.0f ? -c.learning_rate : 0.0f;
    weight.at[j] = c.keep_weight * weight.at[j] - step;
    m.at[j] = fmaf(c.beta2, m.at[j], c.one_less_beta2 * g);
  }
  store_group<aligned>(a.weight + first, weight, count);
  store_group<aligned>(a.m + first, m, count);
  store_rounded<aligned>(a.rounded, first, weight, count);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void lion_tensors(const LionTensorsArgs& args) {
  const auto aligned = [](const LionTensor& a) {
    return rows_aligned(a.weight, 0) && rows_aligned(a.grad, 0) && rows_aligned(a.m, 0) && is_aligned(a.rounded);
  };
  launch_list("lion", args.tensors, args.count, aligned, lion_kernel<true>, lion_kernel<false>, args.constants,
              args.factor);
}
template void lion_tensors<DeviceKind::LATHE_CUDA_NAMESPACE>(const LionTensorsArgs&);

}  // namespace lathe::kernels
