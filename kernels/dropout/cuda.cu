// A thread draws four counters, for two groups of eight elements: bound by instructions, which with a group to a thread
// were half again as many (70 % of an H200's bandwidth).
#include "kernels/dropout/bodies.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/half_rows.h"
#include "kernels/dropout/mask.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads)
    dropout_kernel(DropoutArgs a, Tiling tiling, MaskArgs mask, SequenceBounds bounds, SampleNumbers samples) {
  const HalfRows own = half_rows_of_thread(tiling, a.columns);
  if (own.count[0] == 0) return;
  const int64_t row = bounds.at[0] + own.row;
  Group groups[2];
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h)
    if (own.count[h] > 0) groups[h] = load_group<aligned>(row_of<T>(a.x, row) + own.column[h], own.count[h]);
  const MaskRow mask_row = mask_row_of(bounds, samples, row, added_step(mask));
  LATHE_UNROLL
  for (int h = 0; h < 2; ++h) {
    if (own.count[h] == 0) return;
    drop_eight(groups[h].at, mask, mask_row, static_cast<uint32_t>(own.column[h]));
    store_group<aligned>(row_of<T>(a.out, row) + own.column[h], groups[h], own.count[h]);
  }
}

template <class T>
void drop(const DropoutArgs& a) {
  const bool aligned = rows_aligned<T>(a.out) && rows_aligned<T>(a.x);
  const auto start = [&](const SequenceBounds& bounds, const SampleNumbers& samples) {
    launch_elementwise("dropout", bounds.at[bounds.count] - bounds.at[0], half_columns(a.columns),
                       aligned ? dropout_kernel<T, true> : dropout_kernel<T, false>, a, mask_args(a.mask), bounds,
                       samples);
  };
  for_each_launch_of_samples(a.cu_seqlens, a.sample_numbers, a.sequences, start);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void dropout_rows(const DropoutArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { drop<T>(args); });
}
template void dropout_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const DropoutArgs&);

}  // namespace lathe::kernels
