// Bound by bandwidth: with f32 states 28 bytes move for an element, with 8-bit states a little more than 16. The
// arithmetic is the CPU's, operation by operation, so that the bits are those of a CPU with fused multiply-adds.
#include "kernels/adamw/cuda.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/tensor_list.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

__device__ __forceinline__ void step(const AdamWConstants& c, float& weight, float grad, float& m, float& v) {
  const float g = c.grad_scale * grad;
  m = fmaf(c.beta1, m, c.one_less_beta1 * g);
  v = fmaf(c.beta2, v, c.one_less_beta2 * (g * g));
  const float denominator = fmaf(sqrtf(v), c.inverse_correction2, c.eps);
  weight = c.keep_weight * weight - c.step_size * (m / denominator);
}

template <bool aligned>
__global__ void __launch_bounds__(list_threads)
    adamw_kernel(TensorList<AdamWTensor> list, AdamWConstants c, const double* factor) {
  const auto [tensor, first, count] = elements_of_thread(list);
  if (count == 0 || !take_factor(factor, c.grad_scale)) return;
  const AdamWTensor a = list.tensors[tensor];
  Group weight = load_group<aligned>(a.weight + first, count);
  const Group grad = load_group<aligned>(a.grad + first, count);
  Group m = load_group<aligned>(a.m + first, count), v = load_group<aligned>(a.v + first, count);
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) step(c, weight.at[i], grad.at[i], m.at[i], v.at[i]);
  store_group<aligned>(a.weight + first, weight, count);
  store_group<aligned>(a.m + first, m, count);
  store_group<aligned>(a.v + first, v, count);
  store_rounded<aligned>(a.rounded, first, weight, count);
}

// 8-bit states: a warp has a block of 256 elements, eight to a lane, and needs no barrier once the maps are in shared
// memory. Each lane has its own copy of them there, in a bank of its own: 32 codes looked up in one copy wait for each
// other three to four times, which for eight lookups an element took four fifths of the time that memory needs.

constexpr int quantised = 32 * group_elements;
constexpr int warps_8bit = 16, blocks_8bit = 2;  // of a multiprocessor: 130 KiB of maps, filled once

struct LaneMaps {
  float m[256][32], v[256][32];
};
// One lane's copy of a map.
struct LaneMap {
  const float* first;
  __device__ __forceinline__ float operator[](int code) const { return first[32 * code]; }
};
// Blocks of 256 elements are its blocks; the maps are arguments, too.
using List8bit = TensorList<AdamW8bitTensor, 1840>;
using Resources8bit = BlockResources<warps_8bit * 32, blocks_8bit, sizeof(LaneMaps)>;

// Every lane of a warp reads the same argument: 32 different ones at a time would be read one after the other.
__device__ __forceinline__ void fill_maps(LaneMaps& maps, const AdamW8bitMaps& from) {
  const int lane = threadIdx.x % 32;
  for (int code = threadIdx.x / 32; code < 256; code += warps_8bit) {
    maps.m[code][lane] = from.m[code];
    maps.v[code][lane] = from.v[code];
  }
}

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

// x / divisor as the division rounds it, for many x: the quotient by the reciprocal is within two units of the last
// place, its remainder makes it one of the two neighbours, and from there the next remainder decides (Markstein 1990).
// Within these bounds of the divisor no reciprocal is denormal and every remainder is exact, but for |x| < 2^-102: such
// quotients are below 2^-42, and whatever their last bits are, nearest to zero.
struct Divisor {
  float divisor, inverse;
  bool ordinary;

  __device__ __forceinline__ explicit Divisor(float by)
      : divisor(by), inverse(1.0f / by), ordinary(by >= 0x1p-60f && by <= 0x1p60f) {}

  __device__ __forceinline__ float quotient(float x) const {
    float result = x * inverse;
    result = fmaf(fmaf(-result, divisor, x), inverse, result);
    return fmaf(fmaf(-result, divisor, x), inverse, result);
  }
};

// Within one of the nearest code, from the formula of the map: magnitudes of decade i, up to 10^(i − 6), are cut into
// 2^i equal cells (2^(i + 1) in the unsigned map), with a value in the middle of each. So a magnitude's place in the
// map is linear in each decade, and as the slopes fall from decade to decade, the least of the seven lines is the one.
template <bool is_signed>
__device__ __forceinline__ int code_near(float x) {
  const float magnitude = fabsf(x);
  constexpr float cells = is_signed ? 1.0f : 2.0f;
  float place = fmaf(magnitude, 1e6f / 0.9f * cells, 1.0f / 1.125f * cells);
  place = fminf(place, fmaf(magnitude, 2e5f / 0.9f * cells, 2.0f / 1.125f * cells));
  place = fminf(place, fmaf(magnitude, 4e4f / 0.9f * cells, 4.0f / 1.125f * cells));
  place = fminf(place, fmaf(magnitude, 8e3f / 0.9f * cells, 8.0f / 1.125f * cells));
  place = fminf(place, fmaf(magnitude, 16e2f / 0.9f * cells, 16.0f / 1.125f * cells));
  place = fminf(place, fmaf(magnitude, 32e1f / 0.9f * cells, 32.0f / 1.125f * cells));
  place = fminf(place, fmaf(magnitude, 64.0f / 0.9f * cells, 64.0f / 1.125f * cells));
  return is_signed ? 127 + static_cast<int>(copysignf(place, x)) : static_cast<int>(place) - 1;
}

// As nearest_code() of kernels/quantization/dynamic_map.h: of the code that is near and its neighbours.
template <bool is_signed>
__device__ __forceinline__ uint8_t nearest(const LaneMap& map, float x) {
  int code = code_near<is_signed>(x) - 1;
  code = code < 0 ? 0 : code > 253 ? 253 : code;
  const float below = fabsf(x - map[code]), at = fabsf(x - map[code + 1]), above = fabsf(x - map[code + 2]);
  return static_cast<uint8_t>(code + (below > at ? 1 + (at > above ? 1 : 0) : 0));
}

template <bool is_signed>
__device__ __forceinline__ float encode(const LaneMap& map, const Group& values, Codes& codes) {
  float largest = 0.0f;
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) largest = fmaxf(largest, fabsf(values.at[i]));
  // Bits of numbers ≥ 0 are ordered as the numbers.
  const float absmax = __uint_as_float(__reduce_max_sync(full_warp, __float_as_uint(largest)));
  const Divisor by(absmax > 0.0f ? absmax : 1.0f);
  Group quotients;
  if (by.ordinary) {
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) quotients.at[i] = by.quotient(values.at[i]);
  } else {
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) quotients.at[i] = values.at[i] / by.divisor;
  }
  LATHE_UNROLL
  for (int i = 0; i < group_elements; ++i) codes.at[i] = nearest<is_signed>(map, quotients.at[i]);
  return absmax;
}

// Asks for a warp's next block while it computes this one: there are no registers to load it to.
__device__ __forceinline__ void prefetch_block(const List8bit& list, unsigned listed, int lane) {
  if (listed >= list.blocks) return;
  const auto [tensor, block] = list.place_of(listed);
  const AdamW8bitTensor& a = list.tensors[tensor];
  const int64_t first = int64_t{block} * quantised;
  constexpr int line = 128, lines = quantised * 4 / line, code_lines = quantised / line;
  if (lane < lines) return prefetch_line(a.weight + first + lane * (line / 4));
  if (lane < 2 * lines) return prefetch_line(a.grad + first + (lane - lines) * (line / 4));
  if (lane < 2 * lines + code_lines) return prefetch_line(a.m + first + (lane - 2 * lines) * line);
  if (lane < 2 * (lines + code_lines)) return prefetch_line(a.v + first + (lane - 2 * lines - code_lines) * line);
  if (lane == 30) prefetch_line(a.m_absmax + block);
  if (lane == 31) prefetch_line(a.v_absmax + block);
}

template <bool aligned>
__global__ void __launch_bounds__(Resources8bit::threads, Resources8bit::blocks)
    adamw_8bit_kernel(Resources8bit, List8bit list, AdamWConstants c, const double* factor, AdamW8bitMaps map_values) {
  if (!take_factor(factor, c.grad_scale)) return;
  LaneMaps& maps = *dynamic_shared<LaneMaps>();
  fill_maps(maps, map_values);
  __syncthreads();  // the maps are there

  const int lane = threadIdx.x % 32;
  const LaneMap m_map{&maps.m[0][lane]}, v_map{&maps.v[0][lane]};
  for (unsigned listed = blockIdx.x * warps_8bit + threadIdx.x / 32; listed < list.blocks;
       listed += gridDim.x * warps_8bit) {
    prefetch_block(list, listed + gridDim.x * warps_8bit, lane);
    const auto [tensor, block] = list.place_of(listed);
    const AdamW8bitTensor& a = list.tensors[tensor];  // a copy took registers that there are not
    const int64_t first = int64_t{block} * quantised + lane * group_elements, left = a.count - first;
    const int count = left >= group_elements ? group_elements : left > 0 ? static_cast<int>(left) : 0;
    Group weight = load_group<aligned>(a.weight + first, count);
    const Group grad = load_group<aligned>(a.grad + first, count);
    Codes m_codes = load_codes<aligned>(a.m + first, count), v_codes = load_codes<aligned>(a.v + first, count);
    const float m_absmax = a.m_absmax[block], v_absmax = a.v_absmax[block];
    Group m, v;
    LATHE_UNROLL
    for (int i = 0; i < group_elements; ++i) {
      m.at[i] = m_map[m_codes.at[i]] * m_absmax;
      v.at[i] = v_map[v_codes.at[i]] * v_absmax;
      step(c, weight.at[i], grad.at[i], m.at[i], v.at[i]);
      if (i >= count) m.at[i] = v.at[i] = 0.0f;  // past the end: out of the maxima
    }
    store_group<aligned>(a.weight + first, weight, count);
    store_rounded<aligned>(a.rounded, first, weight, count);
    const float m_new_absmax = encode<true>(m_map, m, m_codes), v_new_absmax = encode<false>(v_map, v, v_codes);
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
void adamw_tensors(const AdamWTensorsCuda& args) {
  const auto aligned = [](const AdamWTensor& a) {
    return rows_aligned(a.weight, 0) && rows_aligned(a.grad, 0) && rows_aligned(a.m, 0) && rows_aligned(a.v, 0) &&
           is_aligned(a.rounded);
  };
  launch_list("adamw", args.tensors, args.count, aligned, adamw_kernel<true>, adamw_kernel<false>, args.constants,
              args.factor);
}
template void adamw_tensors<DeviceKind::LATHE_CUDA_NAMESPACE>(const AdamWTensorsCuda&);

template <DeviceKind>
void adamw_8bit_tensors(const AdamW8bitTensorsCuda& args) {
  bool aligned = true;
  for (int64_t i = 0; i < args.count; ++i) {
    const AdamW8bitTensor& a = args.tensors[i];
    aligned = aligned && rows_aligned(a.weight, 0) && rows_aligned(a.grad, 0) && states_aligned(a.m, a.v) &&
              is_aligned(a.rounded);
  }
  for_each_list<List8bit>(args.tensors, args.count, quantised, [&](const List8bit& list) {
    const unsigned wanted = (list.blocks + warps_8bit - 1) / warps_8bit;
    const unsigned at_a_time = static_cast<unsigned>(blocks_8bit * multiprocessors());
    launch("adamw_8bit", dim3(wanted < at_a_time ? wanted : at_a_time),
           aligned ? adamw_8bit_kernel<true> : adamw_8bit_kernel<false>, list, args.constants, args.factor, *args.maps);
  });
}
template void adamw_8bit_tensors<DeviceKind::LATHE_CUDA_NAMESPACE>(const AdamW8bitTensorsCuda&);

}  // namespace lathe::kernels
