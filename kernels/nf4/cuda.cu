// A warp for each block when quantising, a thread for eight elements when dequantising. All of it is bound by
// bandwidth.
#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"
#include "kernels/nf4/bodies.h"
#include "kernels/nf4/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 128, warps = threads / 32;

unsigned blocks_for(int64_t items, int64_t each) { return static_cast<unsigned>((items + each - 1) / each); }

// ---- quantise ----

struct Thresholds {
  float at[15];
};

__device__ __forceinline__ unsigned code_of(const Thresholds& thresholds, float x) {
  unsigned code = 0;
  LATHE_UNROLL
  for (int i = 0; i < 15; ++i) code += x > thresholds.at[i] ? 1u : 0u;
  return code;
}

template <class T>
__global__ void __launch_bounds__(threads) nf4_quantize_kernel(Nf4QuantizeArgs a, Thresholds thresholds) {
  const int lane = threadIdx.x % 32;
  const int64_t block = int64_t{blockIdx.x} * warps + threadIdx.x / 32;
  if (block >= a.block_end) return;  // a whole warp leaves
  const int64_t first = block * a.block_size;
  const int64_t left = a.numel - first;
  const int count = static_cast<int>(left < a.block_size ? left : a.block_size);
  const T* x = static_cast<const T*>(a.weight) + first;
  float largest = 0.0f;
  for (int i = lane; i < count; i += 32) largest = fmaxf(largest, fabsf(to_float(x[i])));
  largest = warp_max(largest);
  if (lane == 0) a.absmax[block] = largest;
  const float inverse = 1.0f / fmaxf(largest, nf4_least_absmax);
  for (int i = 2 * lane; i < count; i += 64) {
    const unsigned high = code_of(thresholds, to_float(x[i]) * inverse);
    const unsigned low = i + 1 < count ? code_of(thresholds, to_float(x[i + 1]) * inverse) : 7u;
    a.codes[(first + i) / 2] = static_cast<uint8_t>(high << 4 | low);
  }
}

// ---- the scales of the scales ----

constexpr int offset_threads = 1024;

// One block: thread t sums the elements t, t + 1024, …, then halves are folded onto each other, all in f64.
__global__ void __launch_bounds__(offset_threads) nf4_offset_kernel(Nf4OffsetArgs a) {
  struct Partial {
    double sums[offset_threads];
  };
  Partial& partial = block_shared<Partial>();
  const int thread = static_cast<int>(threadIdx.x);
  double sum = 0;
  for (int64_t i = thread; i < a.count; i += offset_threads) sum += static_cast<double>(a.absmax[i]);
  partial.sums[thread] = sum;
  __syncthreads();  // the sums are there
  for (int half = offset_threads / 2; half > 0; half /= 2) {
    if (thread < half) partial.sums[thread] += partial.sums[thread + half];
    __syncthreads();  // this round's sums are there
  }
  if (thread == 0) *a.offset = a.count == 0 ? 0.0f : static_cast<float>(partial.sums[0] / static_cast<double>(a.count));
}

struct MapThresholds {
  float at[256];
};

__global__ void __launch_bounds__(threads) nf4_nest_kernel(Nf4NestArgs a, MapThresholds thresholds) {
  MapThresholds& map = block_shared<MapThresholds>();
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += threads) map.at[i] = thresholds.at[i];
  __syncthreads();  // the map is there
  const int lane = threadIdx.x % 32;
  const int64_t block = int64_t{blockIdx.x} * warps + threadIdx.x / 32;
  if (block >= a.block_end) return;
  const int64_t first = block * nf4_nested_elements;
  const int64_t left = a.count - first;
  const int count = static_cast<int>(left < nf4_nested_elements ? left : nf4_nested_elements);
  const float offset = *a.offset;
  float largest = 0.0f;
  for (int i = lane; i < count; i += 32) largest = fmaxf(largest, fabsf(a.absmax[first + i] - offset));
  largest = warp_max(largest);
  if (lane == 0) a.nested_absmax[block] = largest;
  const float inverse = 1.0f / fmaxf(largest, nf4_least_absmax);
  for (int i = lane; i < count; i += 32) {
    const float x = (a.absmax[first + i] - offset) * inverse;
    int code = 0;
    for (int step = 128; step > 0; step /= 2) code += x > map.at[code + step - 1] ? step : 0;
    a.codes[first + i] = static_cast<uint8_t>(code);
  }
}

// ---- dequantise ----

// Each thread has the eight elements from a multiple of eight on, four bytes of codes in one block. `aligned`: the
// codes are at a multiple of four bytes, and whole groups of out at multiples of 16.
template <class T, bool aligned>
__global__ void __launch_bounds__(threads) nf4_dequantize_kernel(Nf4DequantizeArgs a, Nf4Tables tables) {
  Nf4SharedTables& shared = block_shared<Nf4SharedTables>();
  fill_tables(shared, tables);
  __syncthreads();  // the tables are there
  const int64_t group = a.begin / group_elements + int64_t{blockIdx.x} * threads + threadIdx.x;
  const int64_t start = group * group_elements;
  if (start >= a.end) return;
  const float scale = nf4_scale(a.scales, shared.map, start / a.block_size);
  T* out = static_cast<T*>(a.out) + (start - a.first);
  const uint8_t* codes = a.codes + start / 2;
  if (aligned && start >= a.begin && start + group_elements <= a.end) {
    const unsigned bytes = load_vector<unsigned>(codes);
    Group values;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) {
      const unsigned code = bytes >> (j / 2 * 8 + (j % 2 == 0 ? 4 : 0)) & 15u;
      values.at[j] = shared.values[code] * scale;
    }
    store_group<true>(out, values, group_elements);
    return;
  }
  for (int j = 0; j < group_elements; ++j) {
    if (start + j < a.begin || start + j >= a.end) continue;
    const unsigned code = j % 2 == 0 ? codes[j / 2] >> 4 : codes[j / 2] & 15u;
    out[j] = from_float<T>(shared.values[code] * scale);
  }
}

template <class T>
void dequantize(const Nf4DequantizeArgs& args) {
  const int64_t first_group = args.begin / group_elements;
  const int64_t groups = (args.end + group_elements - 1) / group_elements - first_group;
  const LaunchConfig config{
      .name = "nf4_dequantize", .grid = dim3(blocks_for(groups, threads)), .block = dim3(threads)};
  const bool aligned = args.first % group_elements == 0 && rows_aligned(static_cast<const T*>(args.out), 0) &&
                       reinterpret_cast<uintptr_t>(args.codes) % 4 == 0;
  launch(config, aligned ? nf4_dequantize_kernel<T, true> : nf4_dequantize_kernel<T, false>, args,
         nf4_tables(args.scales));
}

template <class T>
void quantize(const Nf4QuantizeArgs& args) {
  Thresholds thresholds;
  for (int i = 0; i < 15; ++i) thresholds.at[i] = nf4_codebook.thresholds[i];
  launch({.name = "nf4_quantize", .grid = dim3(blocks_for(args.block_end, warps)), .block = dim3(threads)},
         nf4_quantize_kernel<T>, args, thresholds);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void nf4_quantize_blocks(const Nf4QuantizeArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { quantize<T>(args); });
}
template void nf4_quantize_blocks<DeviceKind::LATHE_CUDA_NAMESPACE>(const Nf4QuantizeArgs&);

template <DeviceKind>
void nf4_offset_of(const Nf4OffsetArgs& args) {
  launch({.name = "nf4_offset", .grid = dim3(1), .block = dim3(offset_threads)}, nf4_offset_kernel, args);
}
template void nf4_offset_of<DeviceKind::LATHE_CUDA_NAMESPACE>(const Nf4OffsetArgs&);

template <DeviceKind>
void nf4_nest_blocks(const Nf4NestArgs& args) {
  MapThresholds thresholds;
  for (int i = 0; i < 256; ++i) thresholds.at[i] = args.thresholds[i];
  launch({.name = "nf4_nest", .grid = dim3(blocks_for(args.block_end, warps)), .block = dim3(threads)}, nf4_nest_kernel,
         args, thresholds);
}
template void nf4_nest_blocks<DeviceKind::LATHE_CUDA_NAMESPACE>(const Nf4NestArgs&);

template <DeviceKind>
void nf4_dequantize_elements(const Nf4DequantizeArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { dequantize<T>(args); });
}
template void nf4_dequantize_elements<DeviceKind::LATHE_CUDA_NAMESPACE>(const Nf4DequantizeArgs&);

}  // namespace lathe::kernels
