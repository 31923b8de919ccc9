// Bound by bandwidth: with f32 states 28 bytes move for an element, with 8-bit states a little more than 16. The
// arithmetic is the CPU's, operation by operation, so that the bits are those of a CPU with fused multiply-adds.
#include "kernels/adamw/cuda.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

__device__ __forceinline__ void step(const AdamWConstants& c, float& weight, float grad, float& m, float& v) {
  const float g = c.grad_scale * grad;
  m = fmaf(c.beta1, m, c.one_less_beta1 * g);
  v = fmaf(c.beta2, v, c.one_less_beta2 * (g * g));
  const float denominator = fmaf(sqrtf(v), c.inverse_correction2, c.eps);
  weight = c.keep_weight * weight - c.step_size * (m / denominator);
}

constexpr int threads = 256;

template <bool aligned>
__global__ void __launch_bounds__(threads) adamw_kernel(AdamWOperands a) {
  const int64_t first = (int64_t{blockIdx.x} * threads + threadIdx.x) * group_elements;
  if (first >= a.count) return;
  const int count = a.count - first < group_elements ? static_cast<int>(a.count - first) : group_elements;
  Group weight = load_group<aligned>(a.weight + first, count);
  const Group grad = load_group<aligned>(a.grad + first, count);
  Group m = load_group<aligned>(a.m + first, count), v = load_group<aligned>(a.v + first, count);
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) step(a.constants, weight.at[i], grad.at[i], m.at[i], v.at[i]);
  store_group<aligned>(a.weight + first, weight, count);
  store_group<aligned>(a.m + first, m, count);
  store_group<aligned>(a.v + first, v, count);
}

// 8-bit states: a warp has a block of 256 elements, eight to a lane, and needs no barrier once the maps are in shared
// memory.

constexpr int quantised = 32 * group_elements;
constexpr int most_thread_blocks = 2048;  // a few waves: each loads the maps once

union Codes {
  uint2 vector;
  uint8_t at[group_elements];
};

template <bool aligned>
__device__ __forceinline__ Codes load_codes(const uint8_t* from, int count) {
  Codes codes;
  if (aligned && count == group_elements) {
    codes.vector = load_vector<uint2>(from);
  } else {
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) codes.at[i] = i < count ? from[i] : uint8_t{0};
  }
  return codes;
}

template <bool aligned>
__device__ __forceinline__ void store_codes(uint8_t* to, const Codes& codes, int count) {
  if (aligned && count == group_elements) {
    store_vector(to, codes.vector);
  } else {
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i)
      if (i < count) to[i] = codes.at[i];
  }
}

// Within one of the nearest code, from the formula of the map: magnitudes of decade i are cut into 2^i equal cells
// (2^(i + 1) in the unsigned map), with a value in the middle of each.
template <bool is_signed>
__device__ __forceinline__ int code_near(float x) {
  const float magnitude = fabsf(x);
  int cells = 0;       // of the decade; none below the first
  float scale = 0.0f;  // 10^(6 − i)
  if (magnitude >= 1e-7f) cells = 1, scale = 1e6f;
  if (magnitude >= 1e-6f) cells = 2, scale = 1e5f;
  if (magnitude >= 1e-5f) cells = 4, scale = 1e4f;
  if (magnitude >= 1e-4f) cells = 8, scale = 1e3f;
  if (magnitude >= 1e-3f) cells = 16, scale = 1e2f;
  if (magnitude >= 1e-2f) cells = 32, scale = 1e1f;
  if (magnitude >= 1e-1f) cells = 64, scale = 1.0f;
  if (!is_signed) cells *= 2;
  const int cell = static_cast<int>((magnitude * scale - 0.1f) * (static_cast<float>(cells) / 0.9f));
  const int above_zero = cells + cell;
  if (is_signed) return x < 0.0f ? 127 - above_zero : 127 + above_zero;
  return above_zero > 0 ? above_zero - 1 : 0;
}

// As nearest_code() of kernels/quantization/dynamic_map.h.
template <bool is_signed>
__device__ __forceinline__ uint8_t nearest(const float* map, float x) {
  int code = code_near<is_signed>(x) - 1;
  code = code < 0 ? 0 : code > 253 ? 253 : code;
  LATHE_UNROLL
  for (int i = 0; i < 2; ++i) code += fabsf(x - map[code]) > fabsf(x - map[code + 1]) ? 1 : 0;
  return static_cast<uint8_t>(code);
}

template <bool is_signed>
__device__ __forceinline__ float encode(const float* map, const Group& values, Codes& codes) {
  float largest = 0.0f;
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) largest = fmaxf(largest, fabsf(values.at[i]));
  // Bits of numbers ≥ 0 are ordered as the numbers.
  const float absmax = __uint_as_float(__reduce_max_sync(full_warp, __float_as_uint(largest)));
  const float divisor = absmax > 0.0f ? absmax : 1.0f;
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) codes.at[i] = nearest<is_signed>(map, values.at[i] / divisor);
  return absmax;
}

template <bool aligned>
__global__ void __launch_bounds__(threads) adamw_8bit_kernel(AdamW8bitCuda a) {
  AdamW8bitMaps& maps = block_shared<AdamW8bitMaps>();
  maps.m[threadIdx.x] = a.maps.m[threadIdx.x];
  maps.v[threadIdx.x] = a.maps.v[threadIdx.x];
  __syncthreads();  // the maps are there

  const int lane = threadIdx.x % 32;
  const int64_t blocks = (a.count + quantised - 1) / quantised;
  for (int64_t block = int64_t{blockIdx.x} * (threads / 32) + threadIdx.x / 32; block < blocks;
       block += int64_t{gridDim.x} * (threads / 32)) {
    const int64_t first = block * quantised + lane * group_elements, left = a.count - first;
    const int count = left >= group_elements ? group_elements : left > 0 ? static_cast<int>(left) : 0;
    Group weight = load_group<aligned>(a.weight + first, count);
    const Group grad = load_group<aligned>(a.grad + first, count);
    Codes m_codes = load_codes<aligned>(a.m + first, count), v_codes = load_codes<aligned>(a.v + first, count);
    const float m_absmax = a.m_absmax[block], v_absmax = a.v_absmax[block];
    Group m, v;
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) {
      m.at[i] = maps.m[m_codes.at[i]] * m_absmax;
      v.at[i] = maps.v[v_codes.at[i]] * v_absmax;
      step(a.constants, weight.at[i], grad.at[i], m.at[i], v.at[i]);
      if (i >= count) m.at[i] = v.at[i] = 0.0f;  // past the end: out of the maxima
    }
    store_group<aligned>(a.weight + first, weight, count);
    const float m_new_absmax = encode<true>(maps.m, m, m_codes), v_new_absmax = encode<false>(maps.v, v, v_codes);
    store_codes<aligned>(a.m + first, m_codes, count);
    store_codes<aligned>(a.v + first, v_codes, count);
    if (lane == 0) {
      a.m_absmax[block] = m_new_absmax;
      a.v_absmax[block] = v_new_absmax;
    }
  }
}

bool states_aligned(const void* m, const void* v) {
  return reinterpret_cast<uintptr_t>(m) % 8 == 0 && reinterpret_cast<uintptr_t>(v) % 8 == 0;
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void adamw_elements(const AdamWOperands& args) {
  constexpr int64_t per_block = int64_t{threads} * group_elements;
  const LaunchConfig config{.name = "adamw",
                            .grid = dim3(static_cast<unsigned>((args.count + per_block - 1) / per_block)),
                            .block = dim3(threads)};
  const bool aligned =
      rows_aligned(args.weight, 0) && rows_aligned(args.grad, 0) && rows_aligned(args.m, 0) && rows_aligned(args.v, 0);
  launch(config, aligned ? adamw_kernel<true> : adamw_kernel<false>, args);
}
template void adamw_elements<DeviceKind::LATHE_CUDA_NAMESPACE>(const AdamWOperands&);

template <DeviceKind>
void adamw_8bit_blocks(const AdamW8bitCuda& args) {
  constexpr int64_t per_block = int64_t{threads / 32} * quantised;
  const int64_t wanted = (args.count + per_block - 1) / per_block;
  const LaunchConfig config{
      .name = "adamw_8bit",
      .grid = dim3(static_cast<unsigned>(wanted < most_thread_blocks ? wanted : most_thread_blocks)),
      .block = dim3(threads)};
  const bool aligned = rows_aligned(args.weight, 0) && rows_aligned(args.grad, 0) && states_aligned(args.m, args.v);
  launch(config, aligned ? adamw_8bit_kernel<true> : adamw_8bit_kernel<false>, args);
}
template void adamw_8bit_blocks<DeviceKind::LATHE_CUDA_NAMESPACE>(const AdamW8bitCuda&);

}  // namespace lathe::kernels
