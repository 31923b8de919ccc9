#include "kernels/softcap/bodies.h"

#include "kernels/cuda/elementwise.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <bool aligned>
__global__ void __launch_bounds__(elementwise_threads) softcap_kernel(SoftcapArgs a, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  Group value = load_group<aligned>(row_of<float>(a.x, row) + column, count);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) value.at[j] = a.cap * tanhf(value.at[j] / a.cap);
  store_group<aligned>(row_of<float>(a.out, row) + column, value, count);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void softcap_rows(const SoftcapArgs& args) {
  const bool aligned = rows_aligned<float>(args.x) && rows_aligned<float>(args.out);
  launch_elementwise("softcap", args.row_end, args.columns, aligned ? softcap_kernel<true> : softcap_kernel<false>,
                     args);
}
template void softcap_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const SoftcapArgs&);

}  // namespace lathe::kernels
