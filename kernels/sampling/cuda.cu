// A block for each row. Nothing is sorted: the k-th largest logit, and the one at which the nucleus ends, are found by
// counting, a byte of the logit's bits at a time. Weights are integers (weight.h), so that sums by atomics, by warps or
// by the CPU are the same.
//
// A row is read once for its largest logit, once for the sum of weights, a thirtieth of it again for the draw, and five
// times for each of top-k and top-p; from the second time on it comes from the cache (512 KiB for 128k tokens).
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"
#include "kernels/sampling/cuda.h"
#include "kernels/sampling/weight.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = 512, warps = threads / 32;
using u64 = unsigned long long;

struct Workspace {
  u64 best;
  unsigned has_nan;
  u64 sums[warps];
  u64 histogram[256];
  u64 above;
  unsigned bucket;
  int64_t found;
};

__device__ __forceinline__ u64 warp_total(u64 value) {
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(full_warp, value, lanes);
  return value;
}

// Unsigned numbers in the order of the logits; both zeros are one.
__device__ __forceinline__ unsigned key_of(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// body(i, logit) for the elements of [begin, end) that this lane of a warp owns; four loads are under way at a time.
template <class Body>
__device__ __forceinline__ void for_lane(const float* z, int64_t begin, int64_t end, Body body) {
  int64_t i = begin + threadIdx.x % 32;
  for (; i + 96 < end; i += 128) {
    float logits[4];
    LATHE_UNROLL
    for (int j = 0; j < 4; ++j) logits[j] = z[i + 32 * j];
    LATHE_UNROLL
    for (int j = 0; j < 4; ++j) body(i + 32 * j, logits[j]);
  }
  for (; i < end; i += 32) body(i, z[i]);
}

struct Range {
  int64_t begin, end;
};
// The part of a range that a warp owns, one after another.
__device__ __forceinline__ Range part(Range whole, int warp) {
  const int64_t size = (whole.end - whole.begin + warps - 1) / warps, begin = whole.begin + warp * size;
  return {begin < whole.end ? begin : whole.end, begin + size < whole.end ? begin + size : whole.end};
}

// What is kept of a row, as far as it is known.
struct Row {
  const float* z;
  int64_t columns;
  float largest, inverse_temperature;
  unsigned least_key = 0;    // top-k
  unsigned nucleus_key = 0;  // top-p: larger keys, and this one up to nucleus_last
  int64_t nucleus_last = 0;
  u64 least_weight = 1;

  __device__ __forceinline__ u64 weight(float logit) const {
    const float z_of = (logit - largest) * inverse_temperature;
    float fraction, exponent;
    exponential_parts(fmaxf(z_of, sampling_lowest_z), fraction, exponent);
    return (static_cast<u64>(static_cast<unsigned>(fraction * 0x1p24f)) << 16) >> static_cast<int>(-exponent);
  }
  __device__ __forceinline__ u64 kept_weight(int64_t i, float logit) const {
    const unsigned key = key_of(logit);
    if (key < least_key || key < nucleus_key || (key == nucleus_key && i > nucleus_last)) return 0;
    const u64 w = weight(logit);
    return w >= least_weight ? w : 0;
  }
};

// Σ amount(i, logit) over each warp's part, in shared.sums.
template <class Amount>
__device__ __forceinline__ void sum_parts(const float* z, Range range, Workspace& shared, Amount amount) {
  __syncthreads();  // the sums before these have been read
  const int warp = threadIdx.x / 32;
  const Range own = part(range, warp);
  u64 sum = 0;
  for_lane(z, own.begin, own.end, [&](int64_t i, float logit) { sum += amount(i, logit); });
  sum = warp_total(sum);
  if (threadIdx.x % 32 == 0) shared.sums[warp] = sum;
  __syncthreads();  // the warps' sums are there
}

__device__ __forceinline__ u64 total_of(const Workspace& shared) {
  u64 total = 0;
  for (int w = 0; w < warps; ++w) total += shared.sums[w];
  return total;
}

// The first part at whose end the running sum exceeds target; target becomes what is left of it there.
__device__ __forceinline__ Range exceeding_part(Range range, const Workspace& shared, u64& target) {
  int w = 0;
  for (; w < warps - 1 && shared.sums[w] <= target; ++w) target -= shared.sums[w];
  return part(range, w);
}

// The first i of the range at which the running sum of amounts exceeds target (at the range's end it does). shared.sums
// holds the sums of the range's parts.
template <class Amount>
__device__ __forceinline__ int64_t find(const float* z, Range range, u64 target, Workspace& shared, Amount amount) {
  range = exceeding_part(range, shared, target);
  sum_parts(z, range, shared, amount);
  range = exceeding_part(range, shared, target);
  __syncthreads();  // the sums have been read
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x;
    for (int64_t start = range.begin; start < range.end; start += 32) {
      const int64_t i = start + lane;
      u64 running = i < range.end ? amount(i, z[i]) : 0;
      LATHE_UNROLL
      for (int lanes = 1; lanes < 32; lanes *= 2) {
        const u64 before = __shfl_up_sync(full_warp, running, lanes);
        if (lane >= lanes) running += before;
      }
      const unsigned exceeds = __ballot_sync(full_warp, running > target);
      if (exceeds != 0) {
        if (lane == 0) shared.found = start + __ffs(static_cast<int>(exceeds)) - 1;
        break;
      }
      target -= __shfl_sync(full_warp, running, 31);
    }
  }
  __syncthreads();  // the place is there
  return shared.found;
}

// From the last bucket down, the one at which the running sum reaches target; shared.above is the sum of those after
// it.
__device__ __forceinline__ void choose_bucket(Workspace& shared, u64 target) {
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x, last = 255 - 8 * lane;  // a lane has eight buckets
    u64 own = 0;
    for (int b = 0; b < 8; ++b) own += shared.histogram[last - b];
    u64 running = own;
    LATHE_UNROLL
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      const u64 before = __shfl_up_sync(full_warp, running, lanes);
      if (lane >= lanes) running += before;
    }
    const unsigned reaches = __ballot_sync(full_warp, running >= target);
    if (reaches != 0 && lane == __ffs(static_cast<int>(reaches)) - 1) {
      u64 above = running - own;
      int bucket = last;
      while (above + shared.histogram[bucket] < target) above += shared.histogram[bucket--];
      shared.above = above;
      shared.bucket = static_cast<unsigned>(bucket);
    }
  }
  __syncthreads();  // bucket and above are there
}

// The key at which the sum of amounts, from the largest key down, reaches target, and the sum of the larger ones. The
// first pass sorts by distance from the largest logit, in eighths of a nat: logits share their leading bits, and
// atomics on one bucket wait for each other. It keeps those of one bucket; the others then sort these by a byte of the
// key at a time.
template <class Amount>
__device__ __forceinline__ unsigned select_key(const Row& row, u64 target, u64& larger, Workspace& shared,
                                               Amount amount) {
  const auto distance = [&](float logit) {
    const float eighths = (row.largest - logit) * row.inverse_temperature * 8.0f;
    return eighths < 255.0f ? 255u - static_cast<unsigned>(eighths) : 0u;
  };
  const Range own = part({0, row.columns}, threadIdx.x / 32);
  larger = 0;
  unsigned near = 0, key = 0;
  for (int pass = 0; pass < 5; ++pass) {
    __syncthreads();  // the histogram before this one has been read
    if (threadIdx.x < 256) shared.histogram[threadIdx.x] = 0;
    __syncthreads();  // it is empty
    const int shift = 32 - 8 * pass;
    for_lane(row.z, own.begin, own.end, [&](int64_t i, float logit) {
      if (pass > 0) {
        if (distance(logit) != near) return;
        if (pass > 1 && key_of(logit) >> (shift + 8) != key >> (shift + 8)) return;
      }
      const u64 own_amount = amount(i, logit);
      if (own_amount == 0) return;
      const unsigned bucket = pass == 0 ? distance(logit) : key_of(logit) >> shift & 255u;
      atomicAdd(&shared.histogram[bucket], own_amount);
    });
    __syncthreads();  // the histogram is full
    choose_bucket(shared, target - larger);
    larger += shared.above;
    if (pass == 0) {
      near = shared.bucket;
    } else {
      key |= shared.bucket << shift;
    }
  }
  return key;
}

__device__ __forceinline__ void cut_to_top_k(Row& row, int top_k, Workspace& shared) {
  u64 larger;
  row.least_key = select_key(row, static_cast<u64>(top_k), larger, shared, [](int64_t, float) { return u64{1}; });
}

__device__ __forceinline__ void cut_to_nucleus(Row& row, float top_p, Workspace& shared) {
  const auto weight = [&](int64_t, float logit) { return key_of(logit) >= row.least_key ? row.weight(logit) : u64{0}; };
  sum_parts(row.z, {0, row.columns}, shared, weight);
  const u64 needed = static_cast<u64>(ceil(static_cast<double>(top_p) * static_cast<double>(total_of(shared))));
  u64 larger;
  const unsigned key = select_key(row, needed, larger, shared, weight);
  const u64 each = row.weight(logit_of(key));
  const auto equals = [&](int64_t, float logit) { return key_of(logit) == key ? each : u64{0}; };
  sum_parts(row.z, {0, row.columns}, shared, equals);
  row.nucleus_last = find(row.z, {0, row.columns}, needed - larger - 1, shared, equals);
  row.nucleus_key = key;
}

// Needs 57 registers. Left to itself, ptxas aims at three blocks to a multiprocessor and spills; there is work for one.
__global__ void __launch_bounds__(threads, 1) sample_kernel(SampleCuda a) {
  Workspace& shared = block_shared<Workspace>();
  const SampledRow settings = a.stored != nullptr ? a.stored[blockIdx.x] : a.settings[blockIdx.x];
  Row row;
  row.z = a.logits + int64_t{blockIdx.x} * a.stride;
  row.columns = a.columns;
  if (threadIdx.x == 0) {
    shared.best = 0;
    shared.has_nan = 0;
  }
  __syncthreads();  // best and has_nan are set

  u64 best = 0;  // key and, of equals, the first place
  bool has_nan = false;
  const Range own = part({0, a.columns}, threadIdx.x / 32);
  for_lane(row.z, own.begin, own.end, [&](int64_t i, float logit) {
    const u64 candidate = static_cast<u64>(key_of(logit)) << 32 | (0xffffffffu - static_cast<unsigned>(i));
    has_nan = has_nan || logit != logit;
    if (candidate > best) best = candidate;
  });
  LATHE_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const u64 other = __shfl_xor_sync(full_warp, best, lanes);
    if (other > best) best = other;
  }
  if (threadIdx.x % 32 == 0) atomicMax(&shared.best, best);
  if (has_nan) atomicMax(&shared.has_nan, 1u);
  __syncthreads();  // the best of the row is there
  row.largest = logit_of(static_cast<unsigned>(shared.best >> 32));
  const int64_t first = 0xffffffffu - static_cast<unsigned>(shared.best);

  int32_t* token = a.tokens + blockIdx.x;
  const bool broken = shared.has_nan != 0 || row.largest == INFINITY || row.largest == -INFINITY;
  if (broken || settings.inverse_temperature == 0.0f) {  // the whole block
    if (threadIdx.x != 0) return;
    *token = shared.has_nan != 0 ? -1 : !broken ? static_cast<int32_t>(first) : row.largest > 0.0f ? -2 : -3;
    return;
  }
  row.inverse_temperature = settings.inverse_temperature;
  row.least_weight = settings.least_weight;
  if (settings.top_k > 0 && settings.top_k < a.columns) cut_to_top_k(row, settings.top_k, shared);
  if (settings.top_p < 1.0f) cut_to_nucleus(row, settings.top_p, shared);

  const auto kept = [&](int64_t i, float logit) { return row.kept_weight(i, logit); };
  sum_parts(row.z, {0, a.columns}, shared, kept);
  const u64 target = __umul64hi(settings.draw, total_of(shared));
  const int64_t drawn = find(row.z, {0, a.columns}, target, shared, kept);
  if (threadIdx.x == 0) *token = static_cast<int32_t>(drawn);
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

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void sample_rows(const SampleCuda& args) {
  const LaunchConfig config{.name = "sample", .grid = dim3(static_cast<unsigned>(args.rows)), .block = dim3(threads)};
  launch(config, sample_kernel, args);
}
template void sample_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const SampleCuda&);

template <DeviceKind>
void penalise_row(const PenalisedCuda& args) {
  const LaunchConfig config{.name = "penalise", .grid = dim3(1), .block = dim3(128)};
  launch(config, penalise_kernel, args);
}
template void penalise_row<DeviceKind::LATHE_CUDA_NAMESPACE>(const PenalisedCuda&);

}  // namespace lathe::kernels
