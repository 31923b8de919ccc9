// A warp for each block when quantising, a thread for 32 elements when dequantising. All of it is bound by bandwidth.
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

// A thread has runs of 32 elements: 16 bytes of codes in one block, since no block is shorter. The next run's are on
// their way while one is written. Blocks of threads stay as long as there are runs: filling the tables for each 1024
// elements took longer than moving them. Groups of eight in turns, four under way, need a scale's address for each: 120
// registers.
constexpr int dequantize_threads = 256, dequantize_blocks = 6;
constexpr int run_elements = 32, run_groups = run_elements / group_elements;

struct RunCodes {
  uint32_t words[run_groups];
  Nf4RawScale scale;
};

// Of run `run`, counted from element `begin`, which is a multiple of 32.
__device__ __forceinline__ RunCodes read_run(const Nf4DequantizeArgs& a, int block_bits, int64_t run) {
  const int64_t start = a.begin + run * run_elements;
  const uint4 words = load_vector<uint4>(a.codes + start / 2);
  return {{words.x, words.y, words.z, words.w}, nf4_read_scale(a.scales, start >> block_bits)};
}

template <class T>
__device__ __forceinline__ void write_run(const Nf4DequantizeArgs& a, const Nf4SharedTables& shared,
                                          const RunCodes& codes, int64_t run) {
  T* const out = static_cast<T*>(a.out) + (a.begin - a.first) + run * run_elements;
  const float scale = nf4_scale(a.scales, shared.map, codes.scale);
  LATHE_UNROLL
  for (int g = 0; g < run_groups; ++g) {
    Group values;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) {
      const unsigned code = codes.words[g] >> (j / 2 * 8 + (j % 2 == 0 ? 4 : 0)) & 15u;
      values.at[j] = shared.values[code] * scale;
    }
    store_group<true>(out + g * group_elements, values, group_elements);
  }
}

// `aligned`: begin is a multiple of 32, and its codes and its place in out lie at multiples of 16 bytes. Whole runs,
// and what is left one by one; else all are.
template <class T, bool aligned>
__global__ void __launch_bounds__(dequantize_threads, dequantize_blocks)
    nf4_dequantize_kernel(Nf4DequantizeArgs a, int block_bits, Nf4Tables tables) {
  Nf4SharedTables& shared = block_shared<Nf4SharedTables>();
  const int64_t thread = int64_t{blockIdx.x} * dequantize_threads + threadIdx.x;
  const int64_t threads_of_grid = int64_t{gridDim.x} * dequantize_threads;
  const int64_t runs = aligned ? (a.end - a.begin) / run_elements : 0;
  RunCodes codes = {};
  if (thread < runs) codes = read_run(a, block_bits, thread);
  fill_tables(shared, tables, static_cast<int>(threadIdx.x), dequantize_threads);
  __syncthreads();  // the tables are there
  for (int64_t run = thread; run < runs; run += threads_of_grid) {
    const RunCodes now = codes;
    if (run + threads_of_grid < runs) codes = read_run(a, block_bits, run + threads_of_grid);
    write_run<T>(a, shared, now, run);
  }
  for (int64_t i = a.begin + runs * run_elements + thread; i < a.end; i += threads_of_grid) {
    const unsigned both = a.codes[i / 2], code = i % 2 == 0 ? both >> 4 : both & 15u;
    const float scale = nf4_scale(a.scales, shared.map, nf4_read_scale(a.scales, i >> block_bits));
    static_cast<T*>(a.out)[i - a.first] = from_float<T>(shared.values[code] * scale);
  }
}

template <class T>
void dequantize(const Nf4DequantizeArgs& args) {
  constexpr int64_t elements_of_block = int64_t{dequantize_threads} * run_elements;
  const int64_t wanted = (args.end - args.begin + elements_of_block - 1) / elements_of_block;
  const int64_t at_a_time = int64_t{dequantize_blocks} * multiprocessors();
  const LaunchConfig config{.name = "nf4_dequantize",
                            .grid = dim3(static_cast<unsigned>(wanted < at_a_time ? wanted : at_a_time)),
                            .block = dim3(dequantize_threads)};
  const bool aligned = args.begin % run_elements == 0 &&
                       rows_aligned(static_cast<const T*>(args.out) + (args.begin - args.first), 0) &&
                       rows_aligned(args.codes, 0);
  launch(config, aligned ? nf4_dequantize_kernel<T, true> : nf4_dequantize_kernel<T, false>, args,
         nf4_block_bits(args.block_size), nf4_tables(args.scales));
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
