// Bound by bandwidth: 12 bytes move for an element. The arithmetic is that of a CPU with fused multiply-adds.
#include "kernels/cuda/tensor_list.h"
#include "kernels/sgd/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <bool aligned>
__global__ void __launch_bounds__(list_threads)
    sgd_kernel(TensorList<SgdTensor> list, SgdConstants c, double learning_rate, const double* factor) {
  const auto [tensor, first, count] = elements_of_thread(list);
  if (count == 0) return;
  if (factor != nullptr) {
    const double scale = *factor;
    if (scale != scale) return;
    c.step_size = static_cast<float>(learning_rate * scale);
  }
  const SgdTensor a = list.tensors[tensor];
  Group weight = load_group<aligned>(a.weight + first, count);
  const Group grad = load_group<aligned>(a.grad + first, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) weight.at[j] = fmaf(-c.step_size, grad.at[j], c.keep_weight * weight.at[j]);
  store_group<aligned>(a.weight + first, weight, count);
  store_rounded<aligned>(a.rounded, first, weight, count);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void sgd_tensors(const SgdTensorsArgs& args) {
  const auto aligned = [](const SgdTensor& a) {
    return rows_aligned(a.weight, 0) && rows_aligned(a.grad, 0) && is_aligned(a.rounded);
  };
  launch_list("sgd", args.tensors, args.count, aligned, sgd_kernel<true>, sgd_kernel<false>, args.constants,
              args.learning_rate, args.factor);
}
template void sgd_tensors<DeviceKind::LATHE_CUDA_NAMESPACE>(const SgdTensorsArgs&);

}  // namespace lathe::kernels
