// What a block of a grouped product (grouped.h) is told in device memory.
#pragma once

#include "kernels/matmul/cuda/epilogue.cuh"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/gated_epilogue.cuh"
#include "kernels/matmul/cuda/grouped.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// A weight's number, and its rows of out: none where there is no such group.
struct RowGroup {
  int number, begin, rows;
};

template <class Place>
struct PlacesOf {
  const Place* places;
  const void* const* biases;

  explicit PlacesOf(const GroupedWeights& weights)
      : places(static_cast<const Place*>(weights.places)), biases(weights.biases) {}
  // Null: it has none.
  template <class T>
  __device__ __forceinline__ const T* bias(int number) const {
    return biases == nullptr ? nullptr : static_cast<const T*>(biases[number]);
  }
};

// The groups of a launch, and where their rows of x lie; of few rows each block has blockIdx.y.
struct RowGroups {
  const int32_t *numbers, *bounds, *rows;

  explicit RowGroups(const GroupedArgs& args) : numbers(args.numbers), bounds(args.bounds), rows(args.rows) {}
  __device__ __forceinline__ RowGroup of_block() const { return at(blockIdx.y); }
  __device__ __forceinline__ RowGroup at(int64_t group) const {
    const int begin = bounds[group];
    return {numbers[group], begin, bounds[group + 1] - begin};
  }
};

// out [all rows, n].
template <class T>
struct GroupedOut {
  T* data;
  int64_t stride, n;
  DType dtype;

  explicit GroupedOut(const GroupedArgs& args)
      : data(static_cast<T*>(args.out.data)), stride(args.out.stride), n(args.n), dtype(args.dtype) {}
  __device__ __forceinline__ Epilogue<T> of(const RowGroup& group, const T* bias) const {
    return {.m = group.rows,
            .n = n,
            .scale = 1.0f,
            .bias = {const_cast<T*>(bias), 0, dtype},
            .residual = {},
            .out = {data + group.begin * stride, stride, dtype}};
  }
  __device__ __forceinline__ GatedEpilogue<T> of(const RowGroup& group) const {
    return {group.rows, n, data + group.begin * stride, stride};
  }
};

// Of the tiles of so many columns of every group.
inline dim3 grouped_grid(const GroupedArgs& args, int columns) {
  return dim3(static_cast<unsigned>((args.n + columns - 1) / columns), static_cast<unsigned>(args.groups));
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
