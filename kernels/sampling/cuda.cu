// A row of logits is too much for one multiprocessor, whose arithmetic alone would take 17 µs for each pass over 128k
// of them: the passes that look at all of it are cut into parts, a block each. They are launches of their own, because
// a launch in a graph is cheaper than waiting for blocks that may not have begun:
//   scan     the largest logit; and, in blocks of their own, the statistics for the log-probability
//   weigh    with filters, counts and weights by distance from the largest
//   select   with filters, a block to a row: where top-k and top-p end (select.cuh)
//   sum      the weights of what is kept, by part
//   draw     a block to a row: the part in which the drawn weight lies, and the token there
// Weights are integers (weight.h), so that sums by atomics, by warps or by the CPU are the same.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/linear_cross_entropy/row_statistics.cuh"
#include "kernels/sampling/cuda.h"
#include "kernels/sampling/row.cuh"
#include "kernels/sampling/select.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 256, warps = threads / 32;
static_assert(threads == statistics_threads && threads >= sample_buckets);

__device__ __forceinline__ Range part_of_row(const SampleCuda& a) {
  return part_of({0, a.columns}, static_cast<int>(gridDim.x), static_cast<int>(blockIdx.x));
}

// A warp for each of the statistics' threads, or for several in turn; block `block` of `blocks`.
template <bool aligned>
__device__ __forceinline__ void sum_exponentials(const SampleCuda& a, int block, int blocks) {
  SampleState& state = a.states[blockIdx.y];
  const int warp = static_cast<int>(threadIdx.x / 32);
  for (int t = block * warps + warp; t < statistics_threads; t += blocks * warps) {
    const RowStatistics of_thread = statistics_by_warp<aligned>({a.logits + blockIdx.y * a.stride, a.columns}, t);
    if (threadIdx.x % 32 != 0) continue;
    state.largest[t] = of_thread.largest;
    state.exponentials[t] = of_thread.sum;
  }
}

// Grids of the first four are (parts, rows); of this one (parts + blocks for the statistics, rows).
template <bool aligned>
__global__ void __launch_bounds__(threads) scan_kernel(SampleCuda a, int parts) {
  begin_dependent();
  if (static_cast<int>(blockIdx.x) >= parts)  // the whole block
    return sum_exponentials<aligned>(a, static_cast<int>(blockIdx.x) - parts, static_cast<int>(gridDim.x) - parts);
  struct OfWarps {
    u64 best[warps];
    int has_nan[warps];
  };
  OfWarps& shared = block_shared<OfWarps>();
  SampleState& state = a.states[blockIdx.y];
  const int thread = static_cast<int>(threadIdx.x), part = static_cast<int>(blockIdx.x);
  u64 best = 0;
  bool has_nan = false;
  const Range own = part_of({0, a.columns}, parts, part);
  for_thread<threads, 16>(a.logits + blockIdx.y * a.stride, own, thread, [&](int64_t i, float logit) {
    const u64 candidate = static_cast<u64>(key_of(logit)) << 32 | (0xffffffffu - static_cast<unsigned>(i));
    has_nan = has_nan || logit != logit;
    if (candidate > best) best = candidate;
  });
  best = warp_largest(best);
  const int any_nan = __any_sync(full_warp, has_nan);
  if (thread % 32 == 0) {
    shared.best[thread / 32] = best;
    shared.has_nan[thread / 32] = any_nan;
  }
  // For the kernels that add to these.
  for (int b = part * threads + thread; b < sample_buckets; b += parts * threads) {
    state.weights[b] = 0;
    state.counts[b] = 0;
  }
  __syncthreads();  // the warps' are there
  if (thread != 0) return;
  int nan_of_part = shared.has_nan[0];
  for (int w = 1; w < warps; ++w) {
    if (shared.best[w] > best) best = shared.best[w];
    nan_of_part |= shared.has_nan[w];
  }
  state.best[part] = best;
  state.has_nan[part] = nan_of_part != 0 ? 1 : 0;
  if (part != 0) return;
  state.least_key = 0;
  state.nucleus_key = 0;
  state.nucleus_last = 0;
}

// Whether a token is drawn by its weight, which takes more than the largest logit.
__device__ __forceinline__ bool draws(const SampledRow& settings, const Best& best) {
  return best.fault() == 0 && settings.inverse_temperature != 0.0f;
}

__global__ void __launch_bounds__(threads) weigh_kernel(SampleCuda a) {
  begin_dependent();
  struct Buckets {
    u64 weights[sample_buckets];
    unsigned counts[sample_buckets];
  };
  Buckets& shared = block_shared<Buckets>();
  SampleState& state = a.states[blockIdx.y];
  const int thread = static_cast<int>(threadIdx.x);
  const SampledRow settings = settings_of(a, blockIdx.y);
  const Best best = best_of(state, static_cast<int>(gridDim.x));
  const bool nucleus = cuts_to_nucleus(settings);
  if (!draws(settings, best) || !(cuts_to_top_k(settings, a.columns) || nucleus)) return;  // the whole block
  const Row row = row_of(a, blockIdx.y, settings, best);
  if (thread < sample_buckets) {
    shared.weights[thread] = 0;
    shared.counts[thread] = 0;
  }
  __syncthreads();  // the buckets are empty
  for_thread<threads>(row.z, part_of_row(a), thread, [&](int64_t, float logit) {
    const unsigned bucket = row.nearness(logit);
    atomicAdd(&shared.counts[bucket], 1u);
    if (nucleus) atomicAdd(&shared.weights[bucket], row.weight(logit));
  });
  __syncthreads();  // the buckets are full
  if (thread >= sample_buckets || shared.counts[thread] == 0) return;
  atomicAdd(&state.counts[thread], shared.counts[thread]);
  if (shared.weights[thread] != 0) atomicAdd(&state.weights[thread], shared.weights[thread]);
}

__global__ void __launch_bounds__(select_threads) select_kernel(SampleCuda a, int parts) {
  begin_dependent();
  SelectMemory& shared = block_shared<SelectMemory>();
  SampleState& state = a.states[blockIdx.x];
  const SampledRow settings = settings_of(a, blockIdx.x);
  const Best best = best_of(state, parts);
  if (!draws(settings, best)) return;  // the whole block
  const Row row = row_of(a, blockIdx.x, settings, best);
  unsigned least_key = 0;
  if (cuts_to_top_k(settings, a.columns)) least_key = least_of_top_k(row, settings.top_k, state, shared);
  if (threadIdx.x == 0) state.least_key = least_key;
  if (!cuts_to_nucleus(settings)) return;
  const NucleusEnd end = end_of_nucleus(row, settings.top_p, least_key, state, shared);
  if (threadIdx.x != 0) return;
  state.nucleus_key = end.key;
  state.nucleus_last = end.place;
}

// What is kept of a row, as select_kernel found it.
struct Kept {
  unsigned least_key, nucleus_key;
  int64_t nucleus_last;

  __device__ __forceinline__ explicit Kept(const SampleState& state)
      : least_key(state.least_key), nucleus_key(state.nucleus_key), nucleus_last(state.nucleus_last) {}
  __device__ __forceinline__ u64 weight(const Row& row, int64_t i, float logit) const {
    const unsigned key = key_of(logit);
    if (key < least_key || key < nucleus_key || (key == nucleus_key && i > nucleus_last)) return 0;
    const u64 w = row.weight(logit);
    return w >= row.least_weight ? w : 0;
  }
};

__global__ void __launch_bounds__(threads) sum_kernel(SampleCuda a) {
  begin_dependent();
  struct OfWarps {
    u64 sums[warps];
  };
  OfWarps& shared = block_shared<OfWarps>();
  SampleState& state = a.states[blockIdx.y];
  const SampledRow settings = settings_of(a, blockIdx.y);
  const Best best = best_of(state, static_cast<int>(gridDim.x));
  if (!draws(settings, best)) return;  // the whole block
  const Row row = row_of(a, blockIdx.y, settings, best);
  const Kept kept(state);
  const int thread = static_cast<int>(threadIdx.x);
  u64 sum = 0;
  for_thread<threads>(row.z, part_of_row(a), thread,
                      [&](int64_t i, float logit) { sum += kept.weight(row, i, logit); });
  sum = warp_total(sum);
  if (thread % 32 == 0) shared.sums[thread / 32] = sum;
  __syncthreads();  // the warps' sums are there
  if (thread != 0) return;
  for (int w = 1; w < warps; ++w) sum += shared.sums[w];
  state.sums[blockIdx.x] = sum;
}

struct DrawMemory {
  u64 sums[warps];
  int32_t token;
  StatisticsOfWarps statistics;
};

// The first of `count` sums at whose end the running sum exceeds target; target becomes what is left of it there.
__device__ __forceinline__ int exceeding(const u64* sums, int count, u64& target) {
  int i = 0;
  for (; i < count - 1 && sums[i] <= target; ++i) target -= sums[i];
  return i;
}

// The first i of the range at which the running sum of what is kept exceeds target (at the range's end it does).
__device__ __forceinline__ void find(const Row& row, const Kept& kept, Range range, u64 target, DrawMemory& shared) {
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  u64 sum = 0;
  for_thread<32>(row.z, part_of(range, warps, warp), lane,
                 [&](int64_t i, float logit) { sum += kept.weight(row, i, logit); });
  sum = warp_total(sum);
  if (lane == 0) shared.sums[warp] = sum;
  __syncthreads();  // the warps' sums are there
  if (warp != 0) return;
  range = part_of(range, warps, exceeding(shared.sums, warps, target));
  for (int64_t start = range.begin; start < range.end; start += 32) {
    const int64_t i = start + lane;
    u64 running = i < range.end ? kept.weight(row, i, row.z[i]) : 0;
    LATHE_UNROLL
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      const u64 before = __shfl_up_sync(full_warp, running, lanes);
      if (lane >= lanes) running += before;
    }
    const unsigned exceeds = __ballot_sync(full_warp, running > target);
    if (exceeds != 0) {
      if (lane == 0) shared.token = static_cast<int32_t>(start) + __ffs(static_cast<int>(exceeds)) - 1;
      return;
    }
    target -= __shfl_sync(full_warp, running, 31);
  }
}

__global__ void __launch_bounds__(threads) draw_kernel(SampleCuda a, int parts) {
  begin_dependent();
  DrawMemory& shared = block_shared<DrawMemory>();
  const SampleState& state = a.states[blockIdx.x];
  const SampledRow settings = settings_of(a, blockIdx.x);
  const Best best = best_of(state, parts);
  const Row row = row_of(a, blockIdx.x, settings, best);
  if (draws(settings, best)) {  // the whole block
    u64 total = 0;
    for (int p = 0; p < parts; ++p) total += state.sums[p];
    u64 target = __umul64hi(settings.draw, total);
    const int part = exceeding(state.sums, parts, target);
    find(row, Kept(state), part_of({0, a.columns}, parts, part), target, shared);
  } else if (threadIdx.x == 0) {
    shared.token = best.fault() != 0 ? best.fault() : best.place();
  }
  __syncthreads();  // the token is there
  const int32_t token = shared.token;
  if (threadIdx.x == 0) a.tokens[blockIdx.x] = token;
  if (a.logprobs == nullptr) return;
  const RowStatistics own{state.largest[threadIdx.x], state.exponentials[threadIdx.x]};
  const RowStatistics statistics = row_statistics(own, shared.statistics);
  if (threadIdx.x == 0) a.logprobs[blockIdx.x] = token >= 0 ? log_probability(row.z[token], statistics) : NAN;
}

__global__ void __launch_bounds__(128) penalise_kernel(PenalisedCuda a) {
  for (int i = threadIdx.x; i < a.count; i += 128) {
    float& place = a.logits[a.seen[i].token];
    if (a.restore) {
      place = a.before[i];
      continue;
    }
    float logit = place;
    if (a.before != nullptr) a.before[i] = logit;
    if (a.repetition != 1.0f) logit = logit > 0.0f ? logit / a.repetition : logit * a.repetition;
    if (a.seen[i].count > 0) logit -= a.frequency * static_cast<float>(a.seen[i].count) + a.presence;
    place = logit;
  }
}

void sample(const SampleCuda& a) {
  const int parts = sample_parts(a.columns);
  const auto config = [&](const char* name, int across) {
    return LaunchConfig{.name = name,
                        .grid = dim3(static_cast<unsigned>(across), static_cast<unsigned>(a.rows)),
                        .block = dim3(threads)};
  };
  const auto by_row = [&](const char* name, int block) {
    return LaunchConfig{
        .name = name, .grid = dim3(static_cast<unsigned>(a.rows)), .block = dim3(static_cast<unsigned>(block))};
  };
  // A warp for each of the statistics' threads where the row is long.
  const int statistics = a.logprobs == nullptr ? 0 : parts < 8 ? 2 : statistics_threads / warps;
  launch_dependent(config("sample_scan", parts + statistics),
                   rows_aligned(a.logits, a.stride) ? scan_kernel<true> : scan_kernel<false>, a, parts);
  if (a.filters) launch_dependent(config("sample_weigh", parts), weigh_kernel, a);
  if (a.filters) launch_dependent(by_row("sample_select", select_threads), select_kernel, a, parts);
  launch_dependent(config("sample_sum", parts), sum_kernel, a);
  launch_dependent(by_row("sample_draw", threads), draw_kernel, a, parts);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void sample_rows(const SampleCuda& args) {
  sample(args);
}
template void sample_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const SampleCuda&);

template <DeviceKind>
void penalise_row(const PenalisedCuda& args) {
  const LaunchConfig config{.name = "penalise", .grid = dim3(1), .block = dim3(128)};
  launch(config, penalise_kernel, args);
}
template void penalise_row<DeviceKind::LATHE_CUDA_NAMESPACE>(const PenalisedCuda&);

}  // namespace lathe::kernels
