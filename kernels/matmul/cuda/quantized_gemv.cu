// quantized_gemv.h: a warp for one column, or for two where rows make the operand x dear. A lane takes 32 neighbours along k at a
// time, 16 or 32 bytes of codes, and has the next ones on their way: at N = 4096 some 30 KB for each multiprocessor of an H100.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"
#include "kernels/matmul/cuda/quantized_types.cuh"
#include "kernels/nf4/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 256, warps = threads / 32;
constexpr int lane_weights = 32, step_weights = 32 * lane_weights;

template <QuantizedFormat format>
constexpr int lane_vectors = format == QuantizedFormat::nf4 ? 1 : 2;  // of 16 bytes

template <QuantizedFormat format>
struct LaneCodes {
  uint4 vectors[lane_vectors<format>];
  float scale;
};

template <QuantizedFormat format>
__device__ __forceinline__ float scale_of(const QuantizedProductCuda& a, const float* map, int64_t column, int64_t k) {
  if (format == QuantizedFormat::int8) return a.int8_scales[(column * a.product.k + k) / 64];
  return nf4_scale(a.nf4_scales, map, (column * a.product.k + k) / a.block_size);
}

// Nothing, with scale 0, past the end.
template <QuantizedFormat format>
__device__ __forceinline__ LaneCodes<format> load_codes(const QuantizedProductCuda& a, const float* map, int64_t column,
                                                        int64_t k) {
  LaneCodes<format> result = {};
  if (column >= a.product.n || k >= a.product.k) return result;
  const int64_t element = column * a.product.k + k;
  const uint8_t* codes =
      static_cast<const uint8_t*>(a.codes) + (format == QuantizedFormat::nf4 ? element / 2 : element);
  LATHE_UNROLL
  for (int i = 0; i < lane_vectors<format>; ++i) result.vectors[i] = load_vector<uint4>(codes + 16 * i);
  result.scale = scale_of<format>(a, map, column, k);
  return result;
}

// The eight values from the lane's weight 8 · part on.
template <QuantizedFormat format>
__device__ __forceinline__ Group values_of(const LaneCodes<format>& codes, int part, const float* codebook) {
  const auto word = [&](int i) {
    const uint4& vector = codes.vectors[i / 4];
    return i % 4 == 0 ? vector.x : i % 4 == 1 ? vector.y : i % 4 == 2 ? vector.z : vector.w;
  };
  Group values;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    if (format == QuantizedFormat::nf4) {
      values.at[j] = codebook[word(part) >> (j / 2 * 8 + (j % 2 == 0 ? 4 : 0)) & 15u];
    } else {
      values.at[j] = static_cast<float>(static_cast<int8_t>(word(2 * part + j / 4) >> (j % 4 * 8) & 255u));
    }
  }
  return values;
}

template <class T>
__device__ __forceinline__ float term(const MatrixCuda& matrix, int64_t row, int64_t column) {
  if (matrix.data == nullptr) return 0.0f;
  const int64_t i = row * matrix.stride + column;
  return matrix.dtype == DType::f32 ? static_cast<const float*>(matrix.data)[i]
                                    : to_float(static_cast<const T*>(matrix.data)[i]);
}

template <class T, QuantizedFormat format, int rows, int columns>
__global__ void __launch_bounds__(threads) quantized_gemv_kernel(QuantizedProductCuda a, Nf4Tables tables) {
  Nf4SharedTables& shared = block_shared<Nf4SharedTables>();
  fill_tables(shared, tables);
  __syncthreads();  // the tables are there
  const ProductCuda& p = a.product;
  const int lane = threadIdx.x % 32;
  const int64_t first_column = (int64_t{blockIdx.x} * warps + threadIdx.x / 32) * columns;
  if (first_column >= p.n) return;  // a whole warp leaves
  float sums[rows][columns] = {};
  LaneCodes<format> codes[columns];
  LATHE_UNROLL
  for (int c = 0; c < columns; ++c) codes[c] = load_codes<format>(a, shared.map, first_column + c, lane * lane_weights);
  for (int64_t k = lane * lane_weights; k < p.k; k += step_weights) {
    LaneCodes<format> next[columns];
    LATHE_UNROLL
    for (int c = 0; c < columns; ++c) next[c] = load_codes<format>(a, shared.map, first_column + c, k + step_weights);
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
        const Group values = values_of<format>(codes[c], part, shared.values);
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

template <class T, QuantizedFormat format, int rows, int columns>
void start(const QuantizedProductCuda& args) {
  const int64_t each = warps * columns;
  launch({.name = "quantized_gemv",
          .grid = dim3(static_cast<unsigned>((args.product.n + each - 1) / each)),
          .block = dim3(threads)},
         quantized_gemv_kernel<T, format, rows, columns>, args, nf4_tables(args.nf4_scales));
}

}  // namespace

void quantized_gemv_columns(const QuantizedProductCuda& args) {
  with_quantized_types(args, [&]<class T, QuantizedFormat format>() {
    args.product.m == 1 ? start<T, format, 1, 1>(args) : start<T, format, 4, 2>(args);
  });
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
