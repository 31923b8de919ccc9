// A warp for each block of 64 when quantising, a thread for eight elements when dequantising. Bound by bandwidth.
#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/int8_blocks/bodies.h"
#include "kernels/int8_blocks/least_scale.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 128, warps = threads / 32;
constexpr int block_elements = 64;

__host__ __device__ __forceinline__ int64_t pieces_of(int64_t columns, int piece) {
  return (columns + piece - 1) / piece;
}

template <class T>
__global__ void __launch_bounds__(threads) int8_quantize_kernel(Int8QuantizeArgs a) {
  const int lane = threadIdx.x % 32;
  const int64_t blocks = pieces_of(a.columns, block_elements);
  const int64_t index = int64_t{blockIdx.x} * warps + threadIdx.x / 32;
  if (index >= a.row_end * blocks) return;  // a whole warp leaves
  const int64_t row = index / blocks, first = index % blocks * block_elements;
  const T* x = row_of<T>(a.weight, row) + first;
  const int64_t left = a.columns - first;
  const bool has_one = lane < left, has_two = lane + 32 < left;
  const float one = has_one ? to_float(x[lane]) : 0.0f, two = has_two ? to_float(x[lane + 32]) : 0.0f;
  const float absmax = warp_max(fmaxf(fabsf(one), fabsf(two)));
  const float scale = absmax / 127.0f, inverse = 1.0f / fmaxf(scale, int8_least_scale);
  if (lane == 0) a.scales[index] = scale;
  int8_t* codes = a.codes + row * a.columns + first;
  if (has_one) codes[lane] = static_cast<int8_t>(rintf(one * inverse));
  if (has_two) codes[lane + 32] = static_cast<int8_t>(rintf(two * inverse));
}

union CodeBits {
  uint2 vector;
  int8_t codes[group_elements];
};

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) int8_dequantize_kernel(Int8DequantizeArgs a, Tiling tiling) {
  const auto [row, first, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const float scale = a.scales[row * pieces_of(a.columns, block_elements) + first / block_elements];
  const int8_t* codes = a.codes + row * a.columns + first;
  Group values;
  if (aligned) {
    CodeBits bits;
    bits.vector = load_vector<uint2>(codes);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) values.at[j] = static_cast<float>(bits.codes[j]) * scale;
  } else {
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) values.at[j] = j < count ? static_cast<float>(codes[j]) * scale : 0.0f;
  }
  store_group<aligned>(row_of<T>(a.out, row) + first, values, count);
}

template <class T>
void quantize(const Int8QuantizeArgs& args) {
  const int64_t blocks = args.row_end * pieces_of(args.columns, block_elements);
  launch(
      {.name = "int8_quantize", .grid = dim3(static_cast<unsigned>(pieces_of(blocks, warps))), .block = dim3(threads)},
      int8_quantize_kernel<T>, args);
}

template <class T>
void dequantize(const Int8DequantizeArgs& args) {
  const bool aligned = args.columns % group_elements == 0 && rows_aligned<T>(args.out) &&
                       reinterpret_cast<uintptr_t>(args.codes) % 8 == 0;
  launch_elementwise("int8_dequantize", args.row_end, args.columns,
                     aligned ? int8_dequantize_kernel<T, true> : int8_dequantize_kernel<T, false>, args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void int8_quantize_rows(const Int8QuantizeArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { quantize<T>(args); });
}
template void int8_quantize_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const Int8QuantizeArgs&);

template <DeviceKind>
void int8_dequantize_rows(const Int8DequantizeArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { dequantize<T>(args); });
}
template void int8_dequantize_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const Int8DequantizeArgs&);

}  // namespace lathe::kernels
