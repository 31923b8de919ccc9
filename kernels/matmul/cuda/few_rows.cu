// A few rows times several dense weights in one launch. A decode step's product is done when its weight has been read,
// which takes all multiprocessors: the tiles of all weights stand beside each other in the grid. Tiles, steps along k
// and what becomes of the sums are those of dense.cu, and so are the bits.
#include "kernels/matmul/cuda/few_rows.h"

#include "kernels/cuda/dependent_launch.h"
#include "kernels/matmul/cuda/few_rows.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// ---- several outputs ----

template <class T>
struct Joined {
  DenseOperand<T> left;
  int64_t k;
  struct Part {
    DenseOperand<T> right;
    Epilogue<T> epilogue;
    unsigned end;  // of its tiles
  } parts[joined_most];
};

template <class Shape, class T, class Resources = typename Shape::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    joined_kernel(Resources, const __grid_constant__ Joined<T> p) {
  int index = 0;
  unsigned before = 0;
  while (index + 1 < joined_most && blockIdx.x >= p.parts[index].end) before = p.parts[index++].end;
  const typename Joined<T>::Part& part = p.parts[index];
  const int64_t first_column = int64_t{blockIdx.x - before} * Shape::n;
  launch_dependents();
  prefetch_rows<Shape::n, Shape::threads>(part.right, first_column, part.epilogue.n, p.k);
  grid_dependency_wait();
  multiply_columns<Shape>(part.right, p.k, part.epilogue, first_column,
                          [&](auto& left) { left.start(p.left, 0, part.epilogue.m, p.k); });
}

template <class Shape, class T>
void start(const JoinedProductArgs& args) {
  Joined<T> p{dense_operand<T>(args.left), args.k, {}};
  unsigned tiles = 0;
  for (int i = 0; i < args.count; ++i) {
    const JoinedProductArgs::Part& part = args.parts[i];
    tiles += static_cast<unsigned>((part.n + Shape::n - 1) / Shape::n);
    p.parts[i] = {dense_operand<T>(part.right),
                  {.m = args.m, .n = part.n, .scale = 1.0f, .bias = part.bias, .residual = {}, .out = part.out},
                  tiles};
  }
  if (tiles > 0) launch_dependent("joined_products", dim3(tiles), joined_kernel<Shape, T>, p);
}

template <class T>
void start(const JoinedProductArgs& args) {
  int64_t columns = 0;
  for (const JoinedProductArgs::Part& part : args.parts) columns += part.n;
  columns <= (multiprocessors() - 1) * DecodeRows::n ? start<DecodeColumns, T>(args) : start<DecodeRows, T>(args);
}

// ---- gate and up, whose product goes out alone ----

template <class T>
struct Gated {
  DenseOperand<T> left, gate, up;
  int64_t k;
  GatedEpilogue<T> epilogue;
};

template <class T, class Gate, class Resources = DecodeRows::Resources>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    gated_kernel(Resources, const __grid_constant__ Gated<T> p) {
  const int64_t first_column = int64_t{blockIdx.x} * gated_columns, n = p.epilogue.n;
  launch_dependents();
  prefetch_rows<gated_columns, DecodeRows::threads>(p.gate, first_column, n, p.k);
  prefetch_rows<gated_columns, DecodeRows::threads>(p.up, first_column, n, p.k);
  grid_dependency_wait();
  multiply_gated_columns<T, Gate>(p.gate, p.up, p.k, p.epilogue, first_column,
                                  [&](auto& left) { left.start(p.left, 0, p.epilogue.m, p.k); });
}

template <class T>
void start(const GatedProductArgs& args) {
  const Gated<T> p{.left = dense_operand<T>(args.left),
                   .gate = dense_operand<T>(args.gate),
                   .up = dense_operand<T>(args.up),
                   .k = args.k,
                   .epilogue = gated_epilogue<T>(args.m, args.n, args.out)};
  const dim3 grid(static_cast<unsigned>((args.n + gated_columns - 1) / gated_columns));
  if (args.n == 0) return;
  args.activation == Activation::silu ? launch_dependent("gated_products", grid, gated_kernel<T, Silu>, p)
                                      : launch_dependent("gated_products", grid, gated_kernel<T, GeluTanh>, p);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void joined_products(const JoinedProductArgs& args) {
  if (joined_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(args)) return;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
}
template void joined_products<DeviceKind::LATHE_CUDA_NAMESPACE>(const JoinedProductArgs&);

template <DeviceKind>
void gated_products(const GatedProductArgs& args) {
  if (gated_by_wgmma<DeviceKind::LATHE_CUDA_NAMESPACE>(args)) return;
  args.dtype == DType::bf16 ? start<bf16_t>(args) : start<f16_t>(args);
}
template void gated_products<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedProductArgs&);

}  // namespace lathe::kernels
