// Few rows in groups, each by a dense weight of its own: tiles, steps along k and what becomes of the sums are those of
// few_rows.cu, and so are the bits.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/matmul/cuda/few_rows.cuh"
#include "kernels/matmul/cuda/grouped.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

struct DenseWeights {
  PlacesOf<DensePlace> of;
  int64_t stride;

  template <class T>
  __device__ __forceinline__ DenseOperand<T> operand(int number) const {
    return {static_cast<const T*>(of.places[number].words), stride, true};
  }
};

template <class T>
struct Grouped {
  RowGroups groups;
  DenseOperand<T> left;
  int64_t k;
  DenseWeights weights, up;
  GroupedOut<T> out;
};

template <class T, class Resources = DecodeRows::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_kernel(Resources, const __grid_constant__ Grouped<T> p) {
  begin_dependent();
  const RowGroup group = p.groups.of_block();
  if (group.rows == 0) return;  // the whole block
  const DenseOperand<T> rows{p.left.data + group.begin * p.left.stride, p.left.stride, p.left.aligned};
  multiply_columns<DecodeRows>(
      p.weights.template operand<T>(group.number), p.k, p.out.of(group, p.weights.of.template bias<T>(group.number)),
      int64_t{blockIdx.x} * DecodeRows::n, [&](auto& left) { left.start(rows, 0, group.rows, p.k); });
}

template <class T, class Gate, class Resources = DecodeRows::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    grouped_gated_kernel(Resources, const __grid_constant__ Grouped<T> p) {
  begin_dependent();
  const RowGroup group = p.groups.of_block();
  if (group.rows == 0) return;  // the whole block
  multiply_gated_columns<T, Gate>(
      p.weights.template operand<T>(group.number), p.up.template operand<T>(group.number), p.k, p.out.of(group),
      int64_t{blockIdx.x} * gated_columns,
      [&](auto& left) { left.start_picked(p.left, p.groups.rows + group.begin, group.rows, p.k); },
      {p.weights.of.template bias<T>(group.number), p.up.of.template bias<T>(group.number)});
}

template <class T>
void start(const GroupedArgs& args, int64_t stride) {
  const Grouped<T> p{.groups = RowGroups(args),
                     .left = dense_operand<T>(args.left),
                     .k = args.k,
                     .weights = {PlacesOf<DensePlace>(args.weights), stride},
                     .up = {PlacesOf<DensePlace>(args.up), stride},
                     .out = GroupedOut<T>(args)};
  if (!args.is_gated())
    return launch_dependent("grouped_product", grouped_grid(args, DecodeRows::n), grouped_kernel<T>, p);
  with_gate(args.gate, [&]<class Gate>() {
    launch_dependent("grouped_gated", grouped_grid(args, gated_columns), grouped_gated_kernel<T, Gate>, p);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void grouped_dense(const GroupedArgs& args, int64_t stride) {
  args.dtype == DType::bf16 ? start<bf16_t>(args, stride) : start<f16_t>(args, stride);
}
template void grouped_dense<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupedArgs&, int64_t);

}  // namespace lathe::kernels
