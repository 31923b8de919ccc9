// Bound by bandwidth: a thread for each eight elements (kernels/cuda/elementwise.h).
#include "kernels/add/bodies.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class Out, class A, class B, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) add_kernel(AddArgs args, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  Group out = load_group<aligned>(static_cast<const A*>(args.a) + column, count);
  if (args.b != nullptr) {
    const Group b = load_group<aligned>(static_cast<const B*>(args.b) + column, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) out.at[j] = fmaf(args.scale, b.at[j], out.at[j]);
  } else {
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) out.at[j] *= args.scale;
  }
  store_group<aligned>(static_cast<Out*>(args.out) + column, out, count);
}

template <class Out, class A, class B>
void start(const AddArgs& args) {
  const bool aligned = rows_aligned(static_cast<const Out*>(args.out), 0) &&
                       rows_aligned(static_cast<const A*>(args.a), 0) && rows_aligned(static_cast<const B*>(args.b), 0);
  launch_elementwise(args.b != nullptr ? "add" : "scale", 1, args.end,
                     aligned ? add_kernel<Out, A, B, true> : add_kernel<Out, A, B, false>, args);
}

template <class Half, class Out, class A>
void choose_b(const AddArgs& args) {
  args.b_dtype == DType::f32 ? start<Out, A, float>(args) : start<Out, A, Half>(args);
}

template <class Half, class Out>
void choose_a(const AddArgs& args) {
  args.a_dtype == DType::f32 ? choose_b<Half, Out, float>(args) : choose_b<Half, Out, Half>(args);
}

template <class Half>
void choose_out(const AddArgs& args) {
  args.out_dtype == DType::f32 ? choose_a<Half, float>(args) : choose_a<Half, Half>(args);
}

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) scale_rows_kernel(ScaleRowsArgs args, Tiling tiling) {
  const auto [row, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const int64_t first = row * args.columns + column;
  Group out = load_group<aligned>(static_cast<const T*>(args.a) + first, count);
  const float scale = args.scales[row];
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) out.at[j] *= scale;
  store_group<aligned>(static_cast<T*>(args.out) + first, out, count);
}

template <class T>
void start_rows(const ScaleRowsArgs& args) {
  const bool aligned = rows_aligned(static_cast<const T*>(args.out), args.columns) &&
                       rows_aligned(static_cast<const T*>(args.a), args.columns);
  launch_elementwise("scale_rows", args.rows, args.columns,
                     aligned ? scale_rows_kernel<T, true> : scale_rows_kernel<T, false>, args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void add_range(const AddArgs& args) {
  args.half == DType::f16 ? choose_out<f16_t>(args) : choose_out<bf16_t>(args);
}
template void add_range<DeviceKind::LATHE_CUDA_NAMESPACE>(const AddArgs&);

template <DeviceKind>
void scale_rows(const ScaleRowsArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { start_rows<T>(args); });
}
template void scale_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const ScaleRowsArgs&);

}  // namespace lathe::kernels
