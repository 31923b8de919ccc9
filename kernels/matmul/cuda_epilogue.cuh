// What a product does with its sums: out = scale · sum (+ bias) (+ residual), in that order, rounded once.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/matmul/cuda.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// out [m, n]; T is the operands' dtype, and each matrix is of it or f32.
template <class T>
struct Epilogue {
  int64_t m, n;
  float scale;
  MatrixCuda bias, residual, out;
};

template <class T>
inline Epilogue<T> epilogue_of(const ProductCuda& args) {
  return {args.m, args.n, args.scale, args.bias, args.residual, args.out};
}

template <class T>
__device__ __forceinline__ float read_term(const MatrixCuda& matrix, int64_t row, int64_t column) {
  const int64_t i = row * matrix.stride + column;
  return matrix.dtype == DType::f32 ? static_cast<const float*>(matrix.data)[i]
                                    : to_float(static_cast<const T*>(matrix.data)[i]);
}

template <class T>
__device__ __forceinline__ float finished(const Epilogue<T>& e, int64_t row, int64_t column, float sum) {
  float value = sum * e.scale;
  if (e.bias.data != nullptr) value += read_term<T>(e.bias, 0, column);
  if (e.residual.data != nullptr) value += read_term<T>(e.residual, row, column);
  return value;
}

template <class T>
__device__ __forceinline__ void write_one(const MatrixCuda& out, int64_t row, int64_t column, float value) {
  const int64_t i = row * out.stride + column;
  if (out.dtype == DType::f32) {
    static_cast<float*>(out.data)[i] = value;
  } else {
    static_cast<T*>(out.data)[i] = from_float<T>(value);
  }
}

template <class T>
__device__ __forceinline__ void finish_one(const Epilogue<T>& e, int64_t row, int64_t column, float sum) {
  if (row < e.m && column < e.n) write_one<T>(e.out, row, column, finished(e, row, column, sum));
}

// Two neighbours of a row, of which the first is at an even column: one store where both are there and aligned.
template <class T>
__device__ __forceinline__ void finish_two(const Epilogue<T>& e, int64_t row, int64_t column, float first,
                                           float second) {
  if (row >= e.m || column >= e.n) return;
  first = finished(e, row, column, first);
  const bool both = column + 1 < e.n;
  if (both) second = finished(e, row, column + 1, second);
  const int64_t i = row * e.out.stride + column;
  if (both && e.out.dtype == DType::f32 && reinterpret_cast<uintptr_t>(static_cast<float*>(e.out.data) + i) % 8 == 0) {
    store_vector(static_cast<float*>(e.out.data) + i, float2{first, second});
  } else if (both && e.out.dtype != DType::f32 &&
             reinterpret_cast<uintptr_t>(static_cast<T*>(e.out.data) + i) % (2 * sizeof(T)) == 0) {
    struct alignas(2 * sizeof(T)) Two {
      T first, second;
    };
    store_vector(static_cast<T*>(e.out.data) + i, Two{from_float<T>(first), from_float<T>(second)});
  } else {
    write_one<T>(e.out, row, column, first);
    if (both) write_one<T>(e.out, row, column + 1, second);
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
