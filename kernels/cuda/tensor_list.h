// Work on many tensors in one launch. Their pointers travel as kernel arguments, as many to a launch as fit: one after
// another, an adapter's hundreds of small factors were four launches each in every step of an optimiser.
#pragma once

#include "kernels/arguments/rounded.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int list_threads = 256, list_block = list_threads * group_elements;

// The tensors of one launch, and where the blocks of each begin among those of the grid. Entry::count is a tensor's
// elements, of which there is one at least.
template <class Entry, int bytes = 3584>
struct TensorList {
  static constexpr int most = bytes / static_cast<int>(sizeof(Entry) + sizeof(unsigned));
  Entry tensors[most];
  unsigned first_block[most];
  int count;
  unsigned blocks;

  struct Place {
    int tensor;
    unsigned block;  // of the tensor's
  };
  __device__ __forceinline__ Place place_of(unsigned block) const {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first_block[middle] <= block ? low : high) = middle;
    }
    return {low, block - first_block[low]};
  }
};

// Calls start(list) for as many tensors at a time as a list takes; a tensor has a block for each per_block elements.
template <class List, class Entry, class Start>
void for_each_list(const Entry* tensors, int64_t count, int64_t per_block, const Start& start) {
  List list{};
  for (int64_t i = 0; i < count; ++i) {
    if (tensors[i].count == 0) continue;
    if (list.count == List::most) {
      start(list);
      list.count = 0;
      list.blocks = 0;
    }
    list.tensors[list.count] = tensors[i];
    list.first_block[list.count++] = list.blocks;
    list.blocks += static_cast<unsigned>((tensors[i].count + per_block - 1) / per_block);
  }
  if (list.count > 0) start(list);
}

// A thread's group of elements; none where count is 0.
struct ListedElements {
  int tensor;
  int64_t first;
  int count;
};
template <class Entry>
__device__ __forceinline__ ListedElements elements_of_thread(const TensorList<Entry>& list) {
  const auto [tensor, block] = list.place_of(blockIdx.x);
  const int64_t first = int64_t{block} * list_block + threadIdx.x * group_elements;
  const int64_t elements = list.tensors[tensor].count;
  return {tensor, first, first < elements ? group_size(elements, first) : 0};
}

// kernel(list, args…) with a thread for each group of elements, in the instance for aligned tensors where all of them
// are: aligned(entry).
template <class Entry, class Aligned, class... Args>
void launch_list(const char* name, const Entry* tensors, int64_t count, const Aligned& aligned,
                 void (*aligned_kernel)(TensorList<Entry>, Args...), void (*any_kernel)(TensorList<Entry>, Args...),
                 const Args&... args) {
  bool all_aligned = true;
  for (int64_t i = 0; i < count; ++i) all_aligned = all_aligned && aligned(tensors[i]);
  for_each_list<TensorList<Entry>>(tensors, count, list_block, [&](const TensorList<Entry>& list) {
    launch({.name = name, .grid = dim3(list.blocks), .block = dim3(list_threads)},
           all_aligned ? aligned_kernel : any_kernel, list, args...);
  });
}

// What clip_factor() left on the device (kernels/gradient_norm/gradient_norm.h), where `factor` is not null. False
// where it is NaN: nothing is to change.
__device__ __forceinline__ bool take_factor(const double* factor, float& grad_scale) {
  if (factor == nullptr) return true;
  const double value = *factor;
  grad_scale = static_cast<float>(value);
  return value == value;
}

inline bool is_aligned(const Rounded& rounded) { return reinterpret_cast<uintptr_t>(rounded.data) % 16 == 0; }

template <bool aligned>
__device__ __forceinline__ void store_rounded(const Rounded& to, int64_t first, const Group& group, int count) {
  if (to.data == nullptr) return;
  if (to.dtype == DType::bf16) {
    store_group<aligned>(static_cast<bf16_t*>(to.data) + first, group, count);
  } else {
    store_group<aligned>(static_cast<f16_t*>(to.data) + first, group, count);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
