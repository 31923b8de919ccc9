// The order of the specification: element i of a block of 4096 joins partial sum i mod 16, one thread to a partial sum.
// Half a warp reads 64 consecutive bytes, and there is no barrier; the next loads are under way while these are summed,
// as a block has few threads and their sums are chains. Squares are exact in f64, so that the bits
// are the CPU's.
#include "kernels/cuda/element.h"
#include "kernels/cuda/tensor_list.h"
#include "kernels/gradient_norm/cuda.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 128, partials = 16, square_block = 4096;
constexpr int loads = 16;  // under way at a time: with half a card's threads 32 KB and more of a multiprocessor

template <class T>
__global__ void __launch_bounds__(threads) sum_of_squares_kernel(TensorList<SquaredTensor> list) {
  const auto [tensor, tensor_block] = list.place_of(blockIdx.x);
  const SquaredTensor a = list.tensors[tensor];
  const T* x = static_cast<const T*>(a.x);
  const int64_t block = int64_t{tensor_block} * (threads / partials) + threadIdx.x / partials;
  const int64_t start = block * square_block, left = a.count - start;
  const int size = left <= 0 ? 0 : left < square_block ? static_cast<int>(left) : square_block;
  double sum = 0;
  int i = threadIdx.x % partials;
  constexpr int step = loads * partials;
  const auto whole = [&](int first) { return first + step - partials < size; };
  float values[loads], next[loads];
  const auto load = [&](float(&to)[loads], int first) {
    LATHE_UNROLL
    for (int j = 0; j < loads; ++j) to[j] = to_float(x[start + first + j * partials]);
  };
  const auto add = [&](const float(&from)[loads]) {
    LATHE_UNROLL
    for (int j = 0; j < loads; ++j) sum += static_cast<double>(from[j]) * static_cast<double>(from[j]);
  };
  if (whole(i)) load(values, i);
  while (whole(i)) {
    if (whole(i + step)) load(next, i + step);
    add(values);
    i += step;
    if (!whole(i)) break;
    if (whole(i + step)) load(values, i + step);
    add(next);
    i += step;
  }
  for (; i < size; i += partials) {
    const double value = to_float(x[start + i]);
    sum += value * value;
  }
  LATHE_UNROLL
  for (int width = partials / 2; width > 0; width /= 2) sum += __shfl_down_sync(full_warp, sum, width, partials);
  if (threadIdx.x % partials == 0 && size > 0) a.sums[block] = sum;
}

template <class T>
void run(const SumOfSquaresCuda& args) {
  using List = TensorList<SquaredTensor>;
  constexpr int64_t per_block = int64_t{threads / partials} * square_block;
  for_each_list<List>(args.tensors, args.count, per_block, [](const List& list) {
    launch({.name = "sum_of_squares", .grid = dim3(list.blocks), .block = dim3(threads)}, sum_of_squares_kernel<T>,
           list);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void sum_of_squares_blocks(const SumOfSquaresCuda& args) {
  with_element(args.dtype, [&]<class T>(T) { run<T>(args); });
}
template void sum_of_squares_blocks<DeviceKind::LATHE_CUDA_NAMESPACE>(const SumOfSquaresCuda&);

}  // namespace lathe::kernels
