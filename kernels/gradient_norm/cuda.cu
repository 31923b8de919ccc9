// The order of the specification: element i of a block of 4096 joins partial sum i mod 16, one thread to a partial sum,
// which is a chain. So few threads are a whole card's, and what they ask for themselves (64 bytes of each block at a
// time, 16 loads a thread) reached 29 % of an H200's bandwidth: half a warp, which has a block, copies it through
// stages of shared memory, 256 bytes at a time, and has 4 KiB of it on its way; and there is no barrier. Squares are
// exact in f64, so that the bits are the CPU's.
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/tensor_list.h"
#include "kernels/gradient_norm/cuda.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 128, partials = 16, square_block = 4096;
constexpr int half_warps = threads / partials;

// Of half a warp's block: four pieces of 16 bytes a lane.
template <class T>
struct Stage {
  static constexpr int elements = 1024 / static_cast<int>(sizeof(T)), pieces = 4, piece = partials * 16;
  T at[elements];
};
// A half warp's stages end 64 bytes further on than a multiple of 128, so that two of them meet no bank.
template <class T>
struct Stages {
  static constexpr int count = 4, steps = square_block / Stage<T>::elements;
  Stage<T> stages[count];
  char apart[64];
};

// A half warp's sum where rows are aligned.
template <class T>
__device__ __forceinline__ double sum_through_stages(const T* block, int size, int lane, Stages<T>& shared) {
  using S = Stage<T>;
  const auto fill = [&](int step) {
    LATHE_UNROLL
    for (int p = 0; p < S::pieces; ++p) {
      const int i = step * S::elements + (p * partials + lane) * (16 / static_cast<int>(sizeof(T)));
      const int left = (size - i) * static_cast<int>(sizeof(T));
      if (left > 0)
        cp_async_16(shared.stages[step % Stages<T>::count].at + (i - step * S::elements), block + i,
                    left < 16 ? left : 16);
    }
    cp_async_commit();  // an empty group past the end
  };
  constexpr int ahead = Stages<T>::count - 1;
  for (int step = 0; step < ahead; ++step) fill(step);
  double sum = 0;
#pragma unroll 1
  for (int step = 0; step < Stages<T>::steps; ++step) {
    cp_async_wait<ahead - 1>();
    __syncwarp();  // the stage is there for all lanes, and all have read the one before
    fill(step + ahead);
    const T* const stage = shared.stages[step % Stages<T>::count].at;
    const int left = size - step * S::elements;
    if (left >= S::elements) {
#pragma unroll 8
      for (int i = lane; i < S::elements; i += partials) {
        const double value = to_float(stage[i]);
        sum = fma(value, value, sum);
      }
    } else {
      for (int i = lane; i < left; i += partials) {
        const double value = to_float(stage[i]);
        sum = fma(value, value, sum);
      }
    }
  }
  return sum;
}

template <class T, bool aligned>
__global__ void __launch_bounds__(threads) sum_of_squares_kernel(TensorList<SquaredTensor> list) {
  struct OfHalfWarps {
    Stages<T> of[half_warps];
  };
  const auto [tensor, tensor_block] = list.place_of(blockIdx.x);
  const SquaredTensor a = list.tensors[tensor];
  const T* x = static_cast<const T*>(a.x);
  const int lane = threadIdx.x % partials, half_warp = threadIdx.x / partials;
  const int64_t block = int64_t{tensor_block} * half_warps + half_warp;
  const int64_t start = block * square_block, left = a.count - start;
  const int size = left <= 0 ? 0 : left < square_block ? static_cast<int>(left) : square_block;
  double sum = 0;
  if constexpr (aligned) {
    sum = sum_through_stages<T>(x + start, size, lane, block_shared<OfHalfWarps>().of[half_warp]);
  } else {
#pragma unroll 8
    for (int i = lane; i < size; i += partials) {
      const double value = to_float(x[start + i]);
      sum = fma(value, value, sum);
    }
  }
  LATHE_UNROLL
  for (int width = partials / 2; width > 0; width /= 2) sum += __shfl_down_sync(full_warp, sum, width, partials);
  if (lane == 0 && size > 0) a.sums[block] = sum;
}

template <class T>
void run(const SumOfSquaresCuda& args) {
  using List = TensorList<SquaredTensor>;
  constexpr int64_t per_block = int64_t{half_warps} * square_block;
  bool aligned = true;
  for (int64_t i = 0; i < args.count; ++i)
    aligned = aligned && rows_aligned(static_cast<const T*>(args.tensors[i].x), 0);
  for_each_list<List>(args.tensors, args.count, per_block, [&](const List& list) {
    launch({.name = "sum_of_squares", .grid = dim3(list.blocks), .block = dim3(threads)},
           aligned ? sum_of_squares_kernel<T, true> : sum_of_squares_kernel<T, false>, list);
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
