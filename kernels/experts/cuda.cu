// Bound by bandwidth. A warp chooses for a token; what comes back is summed by a thread for each group of columns.
#include <cmath>

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/experts/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int warps = 4;

struct Softmax {
  float largest, sum;  // Σ exp(z − largest)
};

template <class T>
__device__ __forceinline__ Softmax softmax_of(const T* z, int64_t n, int lane) {
  float largest = -INFINITY, sum = 0.0f;
  for (int64_t e = lane; e < n; e += 32) largest = fmaxf(largest, to_float(z[e]));
  largest = warp_max(largest);
  for (int64_t e = lane; e < n; e += 32) sum += expf(to_float(z[e]) - largest);
  return {largest, warp_sum(sum)};
}

struct Candidate {
  float value;
  int expert;  // negative: none
};

__device__ __forceinline__ Candidate better(Candidate a, Candidate b) {
  if (a.expert < 0) return b;
  if (b.expert < 0) return a;
  const bool first = a.value > b.value || (a.value == b.value && a.expert < b.expert);
  return first ? a : b;
}

// The experts in the order of their values, of equal ones the lower number first: the one that comes after `last`.
// `unrolled`: how many of a lane's values are found at once; each that is a quotient takes registers for a call.
template <int unrolled, class Value>
__device__ __forceinline__ Candidate next_expert(const Value& value_of, int64_t n, Candidate last, int lane) {
  Candidate best{0.0f, -1};
#pragma unroll unrolled
  for (int64_t e = lane; e < n; e += 32) {
    const float value = value_of(e);
    const bool comes_after = last.expert < 0 || value < last.value || (value == last.value && e > last.expert);
    if (comes_after && value == value) best = better(best, {value, static_cast<int>(e)});
  }
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2)
    best =
        better(best, {__shfl_xor_sync(full_warp, best.value, lanes), __shfl_xor_sync(full_warp, best.expert, lanes)});
  return best;
}

__device__ __forceinline__ float sigmoid_of(float x) { return 1.0f / (1.0f + expf(-x)); }

// By a warp: by p = σ(z) and what is added to it.
template <class T>
__device__ __forceinline__ void choose_by_sigmoids(const ChooseExpertsArgs& a, int64_t row, int32_t* chosen, int lane) {
  const T* z = row_of<T>(a.logits, row);
  const float sum = softmax_of(z, a.columns, lane).sum;  // NaN where there is one
  const auto value_of = [&](int64_t e) { return sigmoid_of(to_float(z[e])) + (a.bias != nullptr ? a.bias[e] : 0.0f); };
  float* weights = a.weights + row * a.per_token;
  Candidate last{0.0f, -1};
  float total = sigmoid_sum_offset;
  for (int64_t i = 0; i < a.per_token; ++i) {
    last = next_expert<1>(value_of, a.columns, last, lane);
    if (last.expert < 0) last = {value_of(i), static_cast<int>(i)};  // NaNs have left none
    const float p = sigmoid_of(to_float(z[last.expert]));
    total += p;
    if (lane == 0) {
      chosen[i] = last.expert;
      weights[i] = p;
    }
  }
  if (lane != 0) return;
  const float factor = a.scale / (sum != sum ? sum : a.kind == ExpertWeights::sigmoids ? 1.0f : total);
  for (int64_t i = 0; i < a.per_token; ++i) weights[i] *= factor;
}

// By a warp.
template <class T>
__device__ __forceinline__ void choose_by_softmax(const ChooseExpertsArgs& a, int64_t row, int32_t* chosen, int lane) {
  const T* z = row_of<T>(a.logits, row);
  const Softmax softmax = softmax_of(z, a.columns, lane);
  const auto value_of = [z](int64_t e) { return to_float(z[e]); };
  float* weights = a.weights + row * a.per_token;
  Candidate last{0.0f, -1};
  float total = 0.0f;
  for (int64_t i = 0; i < a.per_token; ++i) {
    last = next_expert<4>(value_of, a.columns, last, lane);
    if (last.expert < 0) last = {to_float(z[i]), static_cast<int>(i)};  // NaNs have left none
    const float e = expf(last.value - softmax.largest);
    total += e;
    if (lane == 0) {
      chosen[i] = last.expert;
      weights[i] = e;
    }
  }
  if (lane != 0) return;
  const bool share = a.kind == ExpertWeights::normalised && softmax.sum == softmax.sum;
  for (int64_t i = 0; i < a.per_token; ++i) weights[i] /= share ? total : softmax.sum;
}

template <class T, bool sigmoids>
__device__ __forceinline__ void choose(const ChooseExpertsArgs& a, int64_t row, int32_t* chosen, int lane) {
  if constexpr (sigmoids) {
    choose_by_sigmoids<T>(a, row, chosen, lane);
  } else {
    choose_by_softmax<T>(a, row, chosen, lane);
  }
}

template <class T, bool sigmoids>
__global__ void __launch_bounds__(warps * 32) choose_kernel(ChooseExpertsArgs a) {
  const int64_t row = int64_t{blockIdx.x} * warps + threadIdx.x / 32;
  if (row < a.row_end) choose<T, sigmoids>(a, row, a.chosen + row * a.per_token, threadIdx.x % 32);
}

// ---- the same with groups: one block, a warp for each token ----

struct Grouping {
  uint8_t goes[few_grouped_tokens][most_experts];  // 1: the token goes to the expert
  uint32_t tokens[most_experts];                   // of each expert, a bit for each
  int32_t first[most_experts];                     // slot of an expert that has some
  int32_t chosen[few_grouped_tokens][few_grouped_choices];
};

// Numbers groups and slots in the order of the experts, by one warp: a lane has neighbours.
__device__ __forceinline__ void number_groups(Grouping& all, const GroupExpertsArgs& out, int experts, int lane) {
  const int each = (experts + 31) / 32, begin = lane * each, end = begin + each < experts ? begin + each : experts;
  int groups = 0, slots = 0;
  for (int e = begin; e < end; ++e) {
    groups += all.tokens[e] != 0;
    slots += __popc(all.tokens[e]);
  }
  int group = groups, slot = slots;  // of this lane and those before, then of those before alone
  LATHE_UNROLL
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const int groups_before = __shfl_up_sync(full_warp, group, lanes),
              slots_before = __shfl_up_sync(full_warp, slot, lanes);
    group += lane >= lanes ? groups_before : 0;
    slot += lane >= lanes ? slots_before : 0;
  }
  const int all_groups = __shfl_sync(full_warp, group, 31), all_slots = __shfl_sync(full_warp, slot, 31);
  group -= groups;
  slot -= slots;
  for (int e = begin; e < end; ++e) {
    if (all.tokens[e] == 0) continue;
    out.experts[group] = e;
    out.bounds[group++] = all.first[e] = slot;
    slot += __popc(all.tokens[e]);
  }
  for (int64_t none = all_groups + lane; none <= out.groups; none += 32) {
    out.bounds[none] = all_slots;
    if (none < out.groups) out.experts[none] = 0;
  }
}

template <class T, bool sigmoids>
__global__ void __launch_bounds__(few_grouped_tokens * 32)
    choose_and_group_kernel(ChooseExpertsArgs a, GroupExpertsArgs out) {
  begin_dependent();
  Grouping& all = block_shared<Grouping>();
  const int thread = threadIdx.x, threads = blockDim.x, lane = thread % 32, token = thread / 32;
  const int experts = static_cast<int>(a.columns), per_token = static_cast<int>(a.per_token);
  for (int e = lane; e < experts; e += 32) all.goes[token][e] = 0;
  choose<T, sigmoids>(a, token, all.chosen[token], lane);
  __syncwarp();  // none goes anywhere, before lane 0 says where they go
  for (int i = 0; lane == 0 && i < per_token; ++i) all.goes[token][all.chosen[token][i]] = 1;
  __syncthreads();  // all have chosen
  for (int e = thread; e < experts; e += threads) {
    uint32_t tokens = 0;
    for (int t = 0; t < threads / 32; ++t) tokens |= uint32_t{all.goes[t][e]} << t;
    all.tokens[e] = tokens;
  }
  __syncthreads();  // each expert's tokens are known
  if (token == 0) number_groups(all, out, experts, lane);
  __syncthreads();  // and its first slot
  for (int i = thread; i < threads / 32 * per_token; i += threads) {
    const int t = i / per_token, expert = all.chosen[t][i % per_token];
    const int slot = all.first[expert] + __popc(all.tokens[expert] & ((1u << t) - 1));
    out.slots[i] = slot;
    out.tokens[slot] = t;
  }
}

template <class T>
__global__ void __launch_bounds__(warps * 32) choose_backward_kernel(ChooseExpertsBackwardArgs a) {
  const int lane = threadIdx.x % 32;
  const int64_t row = int64_t{blockIdx.x} * warps + threadIdx.x / 32;
  if (row >= a.row_end) return;
  const float *g = a.grad_weights + row * a.per_token, *weights = a.weights + row * a.per_token;
  const int32_t* chosen = a.chosen + row * a.per_token;
  T* out = row_of<T>(a.grad_logits, row);
  float mean = 0.0f;
  for (int64_t i = 0; i < a.per_token; ++i) mean += g[i] * weights[i];
  const bool sigmoids = a.kind >= ExpertWeights::sigmoids;
  if (sigmoids) mean = a.kind == ExpertWeights::sigmoids ? 0.0f : mean / a.scale;
  const T* z = row_of<T>(a.logits, row);
  if (a.kind == ExpertWeights::probabilities) {
    const Softmax softmax = softmax_of(z, a.columns, lane);
    for (int64_t e = lane; e < a.columns; e += 32)
      out[e] = from_float<T>(expf(to_float(z[e]) - softmax.largest) * (-mean / softmax.sum));
  } else {
    for (int64_t e = lane; e < a.columns; e += 32) out[e] = from_float<T>(0.0f);
  }
  __syncwarp();  // the chosen ones are written again
  for (int64_t i = lane; i < a.per_token; i += 32) {
    const float gradient = weights[i] * (g[i] - mean);
    out[chosen[i]] = from_float<T>(sigmoids ? gradient * (1.0f - sigmoid_of(to_float(z[chosen[i]]))) : gradient);
  }
}

template <class T, bool aligned>
__global__ void __launch_bounds__(elementwise_threads) combine_kernel(CombineExpertsArgs a, Tiling tiling) {
  begin_dependent();
  const auto [token, column, count] = elements_of_thread(tiling);
  if (count == 0) return;
  const bool adds = a.residual.data != nullptr;
  Group sum = {}, residual = {};  // asked for before the rows, which wait for their slots
  if (adds) residual = load_group<aligned>(row_of<T>(a.residual, token) + column, count);
  for (int64_t i = 0; i < a.per_token; ++i) {
    const Group row = load_group<aligned>(row_of<T>(a.rows, a.slots[token * a.per_token + i]) + column, count);
    const float weight = a.weights != nullptr ? a.weights[token * a.per_token + i] : 1.0f;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) sum.at[j] = fmaf(weight, row.at[j], sum.at[j]);
  }
  LATHE_UNROLL
  for (int j = 0; adds && j < group_elements; ++j) sum.at[j] = residual.at[j] + to_float(from_float<T>(sum.at[j]));
  store_group<aligned>(row_of<T>(a.out, token) + column, sum, count);
}

// A warp for each slot.
template <class T, bool aligned>
__global__ void __launch_bounds__(warps * 32) combine_backward_kernel(CombineExpertsBackwardArgs a) {
  const int lane = threadIdx.x % 32;
  const int64_t index = int64_t{blockIdx.x} * warps + threadIdx.x / 32, token = index / a.per_token;
  if (token >= a.row_end) return;
  const int64_t slot = a.slots[index];
  const T *g = row_of<T>(a.grad_out, token), *row = row_of<T>(a.rows, slot);
  const float weight = a.weights != nullptr ? a.weights[index] : 1.0f;
  float sum = 0.0f;
  for (int64_t column = lane * group_elements; column < a.columns; column += 32 * group_elements) {
    const int count = group_size(a.columns, column);
    Group gradient = load_group<aligned>(g + column, count);
    const Group value = load_group<aligned>(row + column, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) {
      sum = fmaf(gradient.at[j], value.at[j], sum);
      gradient.at[j] *= weight;
    }
    if (a.grad_rows.data != nullptr) store_group<aligned>(row_of<T>(a.grad_rows, slot) + column, gradient, count);
  }
  sum = warp_sum(sum);
  if (lane == 0 && a.grad_weights != nullptr) a.grad_weights[index] = sum;
}

LaunchConfig for_warps(const char* name, int64_t count) {
  return {.name = name, .grid = dim3(static_cast<unsigned>((count + warps - 1) / warps)), .block = dim3(warps * 32)};
}

template <class T>
void combine(const CombineExpertsArgs& args) {
  const bool aligned = rows_aligned<T>(args.out) && rows_aligned<T>(args.rows) && rows_aligned<T>(args.residual);
  launch_elementwise<Launch::dependent>("combine_experts", args.row_end, args.columns,
                                        aligned ? combine_kernel<T, true> : combine_kernel<T, false>, args);
}

template <class T>
void combine_backward(const CombineExpertsBackwardArgs& args) {
  const bool aligned = rows_aligned<T>(args.grad_rows) && rows_aligned<T>(args.grad_out) && rows_aligned<T>(args.rows);
  launch(for_warps("combine_experts_backward", args.row_end * args.per_token),
         aligned ? combine_backward_kernel<T, true> : combine_backward_kernel<T, false>, args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void choose_experts_rows(const ChooseExpertsArgs& args) {
  with_element(args.dtype, [&]<class T>(T) {
    launch(for_warps("choose_experts", args.row_end),
           args.kind >= ExpertWeights::sigmoids ? choose_kernel<T, true> : choose_kernel<T, false>, args);
  });
}
template void choose_experts_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const ChooseExpertsArgs&);

template <DeviceKind>
void choose_and_group_experts_rows(const ChooseExpertsArgs& args, const GroupExpertsArgs& groups) {
  with_element(args.dtype, [&]<class T>(T) {
    launch_dependent(
        {.name = "choose_and_group_experts", .grid = dim3(1), .block = dim3(static_cast<unsigned>(args.row_end) * 32)},
        args.kind >= ExpertWeights::sigmoids ? choose_and_group_kernel<T, true> : choose_and_group_kernel<T, false>,
        args, groups);
  });
}
template void choose_and_group_experts_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const ChooseExpertsArgs&,
                                                                              const GroupExpertsArgs&);

template <DeviceKind>
void choose_experts_backward_rows(const ChooseExpertsBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) {
    launch(for_warps("choose_experts_backward", args.row_end), choose_backward_kernel<T>, args);
  });
}
template void choose_experts_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const ChooseExpertsBackwardArgs&);

template <DeviceKind>
void combine_experts_rows(const CombineExpertsArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { combine<T>(args); });
}
template void combine_experts_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const CombineExpertsArgs&);

template <DeviceKind>
void combine_experts_backward_rows(const CombineExpertsBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { combine_backward<T>(args); });
}
template void combine_experts_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const CombineExpertsBackwardArgs&);

}  // namespace lathe::kernels
