// quantized_gemv.h: a warp for one column, or for two where rows make the operand x dear. A lane takes 32 neighbours
// along k at a time, 16 or 32 bytes of codes, and has the next ones on their way: at N = 4096 some 30 KB for each
// multiprocessor of an H100.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"
#include "kernels/matmul/weights/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 256, warps = threads / 32;
constexpr int lane_weights = 32, step_weights = 32 * lane_weights;

template <class Codes>
struct LaneCodes {
  uint32_t words[lane_weights * Codes::bits / 32];
  float scale;
};

// Of a row of the weight, `n` × `k`. Nothing, with scale 0, past the end.
template <class Codes>
__device__ __forceinline__ LaneCodes<Codes> load_codes(const Codes& codes, const typename Codes::Shared& shared,
                                                       int64_t n, int64_t k, int64_t row, int64_t first_k) {
  LaneCodes<Codes> result = {};
  if (row >= n || first_k >= k) return result;
  load_words(result.words, codes.codes + (row * k + first_k) / (8 / Codes::bits));
  result.scale = codes.scale(codes.read_scale(row, first_k, k), shared);
  return result;
}

// The eight values from the lane's weight 8 · part on.
template <class Codes>
__device__ __forceinline__ Group values_of(const LaneCodes<Codes>& codes, int part,
                                           const typename Codes::Shared& shared) {
  Group values;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) values.at[j] = Codes::value(codes.words, part * group_elements + j, shared);
  return values;
}

template <class T>
__device__ __forceinline__ float term(const ProductMatrix& matrix, int64_t row, int64_t column) {
  if (matrix.data == nullptr) return 0.0f;
  const int64_t i = row * matrix.stride + column;
  return matrix.dtype == DType::f32 ? static_cast<const float*>(matrix.data)[i]
                                    : to_float(static_cast<const T*>(matrix.data)[i]);
}

template <class T, class Codes, int rows, int columns>
__global__ void __launch_bounds__(threads) quantized_gemv_kernel(ProductArgs p, Codes weight) {
  typename Codes::Shared& shared = block_shared<typename Codes::Shared>();
  weight.fill(shared, static_cast<int>(threadIdx.x), threads);
  __syncthreads();  // what decoding looks up is there
  const int lane = threadIdx.x % 32;
  const int64_t first_column = (int64_t{blockIdx.x} * warps + threadIdx.x / 32) * columns;
  if (first_column >= p.n) return;  // a whole warp leaves
  float sums[rows][columns] = {};
  const auto load = [&](int c, int64_t k) { return load_codes(weight, shared, p.n, p.k, first_column + c, k); };
  LaneCodes<Codes> codes[columns];
  LATHE_UNROLL
  for (int c = 0; c < columns; ++c) codes[c] = load(c, lane * lane_weights);
  for (int64_t k = lane * lane_weights; k < p.k; k += step_weights) {
    LaneCodes<Codes> next[columns];
    LATHE_UNROLL
    for (int c = 0; c < columns; ++c) next[c] = load(c, k + step_weights);
    float partial[rows][columns] = {};
    LATHE_UNROLL
    for (int part = 0; part < lane_weights / group_elements; ++part) {
      Group x[rows];
      LATHE_UNROLL
      for (int r = 0; r < rows; ++r) {
        x[r] = {};
        if (r < p.m)
          x[r] = load_group<true>(static_cast<const T*>(p.left.data) + r * p.left.stride + k + part * group_elements,
                                  group_elements);
      }
      LATHE_UNROLL
      for (int c = 0; c < columns; ++c) {
        const Group values = values_of(codes[c], part, shared);
        LATHE_UNROLL
        for (int r = 0; r < rows; ++r) {
          LATHE_UNROLL
          for (int j = 0; j < group_elements; ++j) partial[r][c] = fmaf(x[r].at[j], values.at[j], partial[r][c]);
        }
      }
    }
    LATHE_UNROLL
    for (int c = 0; c < columns; ++c) {
      LATHE_UNROLL
      for (int r = 0; r < rows; ++r) sums[r][c] = fmaf(partial[r][c], codes[c].scale, sums[r][c]);
      codes[c] = next[c];
    }
  }
  LATHE_UNROLL
  for (int r = 0; r < rows; ++r) {
    if (r >= p.m) break;
    LATHE_UNROLL
    for (int c = 0; c < columns; ++c) {
      const int64_t column = first_column + c;
      if (column >= p.n) break;
      float sum = sums[r][c];
      for (int64_t i = lane; i < p.k2; i += 32) sum = fmaf(term<T>(p.left2, r, i), term<T>(p.right2, column, i), sum);
      sum = warp_sum(sum) + term<T>(p.bias, 0, column) + term<T>(p.residual, r, column);
      if (lane != 0) continue;
      const int64_t i = r * p.out.stride + column;
      if (p.out.dtype == DType::f32) {
        static_cast<float*>(p.out.data)[i] = sum;
      } else {
        static_cast<T*>(p.out.data)[i] = from_float<T>(sum);
      }
    }
  }
}

template <class T, int rows, int columns, class Codes>
void start(const ProductArgs& args, const Codes& codes) {
  const int64_t each = warps * columns;
  launch({.name = "quantized_gemv",
          .grid = dim3(static_cast<unsigned>((args.n + each - 1) / each)),
          .block = dim3(threads)},
         quantized_gemv_kernel<T, Codes, rows, columns>, args, codes);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void quantized_gemv_columns(const QuantizedProductArgs& args) {
  with_codes(args, [&]<class T>(const auto& codes) {
    args.product.m == 1 ? start<T, 1, 1>(args.product, codes) : start<T, 4, 2>(args.product, codes);
  });
}
template void quantized_gemv_columns<DeviceKind::LATHE_CUDA_NAMESPACE>(const QuantizedProductArgs&);

}  // namespace lathe::kernels
