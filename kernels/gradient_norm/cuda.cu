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
  static constexpr int elements = 1024 / static_cast<int>(sizeof(T)), pieces = 4;
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

// The blocks' sums are added in the order of the specification, where they lie: a warp has a tensor's chain, one thread
// that of the tensors. 64 thousand blocks (an embedding of 128256 × 2048) are some 0.3 ms of one warp.
constexpr int clip_threads = 512, clip_warps = clip_threads / 32;

struct ClipList {
  static constexpr int most = 248;  // 3.9 KiB of arguments
  BlockSums tensors[most];
  int count, gradients;
  bool first, last;
  double max_norm, loss_scale;
  double* clip;  // between two launches the sums so far, of the gradients and of what is watched
};

// Every lane has the sum. What comes next is loaded while a round's values are added.
__device__ __forceinline__ double chain_of(const BlockSums& blocks, int lane) {
  constexpr int loads = 4;
  double next[loads];
  const auto load = [&](int64_t first) {
    LATHE_UNROLL
    for (int j = 0; j < loads; ++j) {
      const int64_t i = first + 32 * j + lane;
      next[j] = i < blocks.count ? blocks.sums[i] : 0.0;
    }
  };
  double sum = 0;
  load(0);
  for (int64_t first = 0; first < blocks.count; first += 32 * loads) {
    double values[loads];
    LATHE_UNROLL
    for (int j = 0; j < loads; ++j) values[j] = next[j];
    load(first + 32 * loads);
    LATHE_UNROLL
    for (int j = 0; j < loads; ++j) {
      const int64_t left = blocks.count - first - 32 * j;
      const int count = left >= 32 ? 32 : static_cast<int>(left);
#pragma unroll 8
      for (int i = 0; i < count; ++i) sum += __shfl_sync(full_warp, values[j], i);
    }
  }
  return sum;
}

__global__ void __launch_bounds__(clip_threads) clip_factor_kernel(ClipList list) {
  struct Totals {
    double of[ClipList::most];
  };
  Totals& totals = block_shared<Totals>();
  const int lane = threadIdx.x % 32;
  for (int t = threadIdx.x / 32; t < list.count; t += clip_warps) {
    const double total = chain_of(list.tensors[t], lane);
    if (lane == 0) totals.of[t] = total;
  }
  __syncthreads();  // the totals are there
  if (threadIdx.x > 0) return;
  double squares = list.first ? 0.0 : list.clip[0], watched = list.first ? 0.0 : list.clip[1];
  for (int t = 0; t < list.gradients; ++t) squares += totals.of[t];
  for (int t = list.gradients; t < list.count; ++t) watched += totals.of[t];
  if (list.last) {
    const double norm = sqrt(squares) / list.loss_scale;
    const double unfit = (norm - norm) + (watched - watched);  // NaN where one is not finite
    const double wanted = list.max_norm > 0 ? list.max_norm / (norm + 1e-6) : 1.0;
    squares = norm;
    watched = unfit == 0 ? (wanted < 1.0 ? wanted : 1.0) / list.loss_scale : unfit;
  }
  list.clip[0] = squares;
  list.clip[1] = watched;
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void sum_of_squares_blocks(const SumOfSquaresCuda& args) {
  with_element(args.dtype, [&]<class T>(T) { run<T>(args); });
}
template void sum_of_squares_blocks<DeviceKind::LATHE_CUDA_NAMESPACE>(const SumOfSquaresCuda&);

template <DeviceKind>
void clip_factor(const ClipFactorCuda& args) {
  int64_t done = 0;
  do {
    ClipList list{};
    list.max_norm = args.max_norm;
    list.loss_scale = args.loss_scale;
    list.clip = args.clip;
    const int64_t left = args.count - done, gradients = args.gradients > done ? args.gradients - done : 0;
    list.count = left < ClipList::most ? static_cast<int>(left) : ClipList::most;
    list.gradients = gradients < list.count ? static_cast<int>(gradients) : list.count;
    for (int t = 0; t < list.count; ++t) list.tensors[t] = args.tensors[done + t];
    list.first = done == 0;
    done += list.count;
    list.last = done == args.count;
    launch({.name = "clip_factor", .grid = dim3(1), .block = dim3(clip_threads)}, clip_factor_kernel, list);
  } while (done < args.count);
}
template void clip_factor<DeviceKind::LATHE_CUDA_NAMESPACE>(const ClipFactorCuda&);

}  // namespace lathe::kernels
