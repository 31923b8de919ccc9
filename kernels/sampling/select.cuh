// The logits at which top-k and top-p end, without a sort: by counting, in one block for a row. The buckets of
// SampleState say among which logits the k-th largest lies, or the one at which the nucleus ends; these few thousand
// are gathered in shared memory, and found there a byte of their keys at a time.
#pragma once

#include "kernels/sampling/row.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int select_threads = 512;
// Of normal logits one bucket of 128k holds 6000 at most; more than fit are read from the row, again and again.
inline constexpr int gathered_most = 5000;

struct SelectMemory {
  u64 histogram[sample_buckets];
  u64 above;
  unsigned bucket;
  unsigned gathered;
  unsigned keys[gathered_most], places[gathered_most];
};

// A bucket, and the sum of those above it.
struct Chosen {
  unsigned bucket;
  u64 above;
};

// From the last bucket down, the one at which the running sum reaches target.
__device__ __forceinline__ Chosen choose_bucket(SelectMemory& shared, u64 target) {
  __syncthreads();  // the histogram is full
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
  const Chosen chosen{shared.bucket, shared.above};
  __syncthreads();  // all have read them
  return chosen;
}

// The logits of one bucket of nearness.
class Candidates {
 public:
  __device__ __forceinline__ Candidates(const Row& row, unsigned bucket, u64 count, SelectMemory& shared)
      : row_(row), bucket_(bucket), gathers_(count <= gathered_most), shared_(shared) {
    if (threadIdx.x == 0) shared.gathered = 0;
    __syncthreads();  // the counter is zero, and nobody reads the candidates before
    if (!gathers_) return;
    for_row([&](unsigned key, unsigned place) {
      const unsigned at = atomicAdd(&shared.gathered, 1u);  // their order does not matter
      shared.keys[at] = key;
      shared.places[at] = place;
    });
    __syncthreads();  // they are there
  }

  // body(key, place) for this thread's.
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
    if (!gathers_) return for_row(body);
    const unsigned count = shared_.gathered;
    for (unsigned i = threadIdx.x; i < count; i += select_threads) body(shared_.keys[i], shared_.places[i]);
  }

  // From the largest number down, the one at which the sum of the amounts reaches target; `above` becomes the sum of
  // the larger ones. number(key, place), amount(key, place); an amount of 0 leaves a candidate out.
  template <class Number, class Amount>
  __device__ __forceinline__ unsigned select(u64 target, u64& above, Number number, Amount amount) const {
    unsigned found = 0;
    above = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
      __syncthreads();  // the histogram before this one has been read
      if (threadIdx.x < sample_buckets) shared_.histogram[threadIdx.x] = 0;
      __syncthreads();  // it is empty
      for_each([&](unsigned key, unsigned place) {
        const unsigned value = number(key, place);
        if (shift < 24 && value >> (shift + 8) != found >> (shift + 8)) return;
        const u64 own = amount(key, place);
        if (own != 0) atomicAdd(&shared_.histogram[value >> shift & 255u], own);
      });
      const Chosen chosen = choose_bucket(shared_, target - above);
      above += chosen.above;
      found |= chosen.bucket << shift;
    }
    return found;
  }

 private:
  template <class Body>
  __device__ __forceinline__ void for_row(Body body) const {
    for_thread<select_threads>(row_.z, {0, row_.columns}, static_cast<int>(threadIdx.x), [&](int64_t i, float logit) {
      if (row_.nearness(logit) == bucket_) body(key_of(logit), static_cast<unsigned>(i));
    });
  }

  const Row& row_;
  unsigned bucket_;
  bool gathers_;
  SelectMemory& shared_;
};

// The least key that top-k keeps. The buckets' sums of weights become those of what it keeps.
__device__ __forceinline__ unsigned least_of_top_k(const Row& row, int top_k, SampleState& state,
                                                   SelectMemory& shared) {
  const unsigned bucket = threadIdx.x;
  if (bucket < sample_buckets) shared.histogram[bucket] = state.counts[bucket];
  const Chosen edge = choose_bucket(shared, static_cast<u64>(top_k));
  const Candidates candidates(row, edge.bucket, state.counts[edge.bucket], shared);
  u64 above;
  const unsigned least = candidates.select(
      static_cast<u64>(top_k) - edge.above, above, [](unsigned key, unsigned) { return key; },
      [](unsigned, unsigned) { return u64{1}; });
  __syncthreads();  // the last histogram has been read
  if (bucket == 0) shared.above = 0;
  __syncthreads();  // the sum is empty
  u64 kept = 0;
  candidates.for_each([&](unsigned key, unsigned) { kept += key >= least ? row.weight(logit_of(key)) : 0; });
  kept = warp_total(kept);
  if (threadIdx.x % 32 == 0) atomicAdd(&shared.above, kept);
  __syncthreads();  // it is there
  if (bucket < edge.bucket) state.weights[bucket] = 0;
  if (bucket == edge.bucket) state.weights[bucket] = shared.above;
  __syncthreads();  // the buckets are those of what is kept
  return least;
}

struct NucleusEnd {
  unsigned key;  // larger ones are in the nucleus, and this one up to
  int64_t place;
};

__device__ __forceinline__ NucleusEnd end_of_nucleus(const Row& row, float top_p, unsigned least_key,
                                                     const SampleState& state, SelectMemory& shared) {
  if (threadIdx.x == 0) shared.above = 0;
  __syncthreads();  // the sum is empty
  const u64 own = threadIdx.x < sample_buckets ? u64{state.weights[threadIdx.x]} : 0;
  const u64 of_warp = warp_total(own);
  if (threadIdx.x % 32 == 0) atomicAdd(&shared.above, of_warp);
  __syncthreads();  // the total is there
  const u64 total = shared.above;
  const u64 needed = static_cast<u64>(ceil(static_cast<double>(top_p) * static_cast<double>(total)));
  __syncthreads();  // all have read it
  if (threadIdx.x < sample_buckets) shared.histogram[threadIdx.x] = own;
  const Chosen edge = choose_bucket(shared, needed);
  const Candidates candidates(row, edge.bucket, state.counts[edge.bucket], shared);
  const auto weight = [&](unsigned key, unsigned) { return key >= least_key ? row.weight(logit_of(key)) : u64{0}; };
  u64 above;
  const unsigned key = candidates.select(
      needed - edge.above, above, [](unsigned k, unsigned) { return k; }, weight);
  // Of the tokens with this logit as many as the nucleus needs, the lower ids first.
  const u64 each = row.weight(logit_of(key)), missing = needed - edge.above - above;
  const u64 equals = each == 0 ? 1 : (missing + each - 1) / each;
  const unsigned last = candidates.select(
      equals, above, [](unsigned, unsigned place) { return 0xffffffffu - place; },
      [&](unsigned k, unsigned) { return k == key ? u64{1} : u64{0}; });
  return {key, int64_t{0xffffffffu - last}};
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
