// Many tokens' choices in the order of the experts: a counting sort. A block has a chunk of the tokens and a thread of
// it an expert, for which it looks through the chunk's choices from first to last. So an expert's slots are in the
// order of the tokens, by no atomics, and a warp reads one address of shared memory at a time: 1024 choices are 256
// loads of four. Sorting a chunk by bits would take a third of it, some 2 µs where the experts' products take 100 and
// more.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/row.h"
#include "kernels/experts/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

struct Chunk {
  alignas(16) int32_t chosen[group_chunk_choices];
};
struct ChunkPlace {
  int first_token, choices;
};

// The block's, by all of its threads.
__device__ __forceinline__ ChunkPlace read_chunk(Chunk& chunk, const GroupManyArgs& a) {
  const int per_token = static_cast<int>(a.per_token), chunk_tokens = static_cast<int>(a.chunk_tokens);
  const int first = static_cast<int>(blockIdx.x) * chunk_tokens, left = static_cast<int>(a.tokens) - first;
  const int choices = (left < chunk_tokens ? left : chunk_tokens) * per_token;
  const int32_t* const from = a.chosen + int64_t{first} * per_token;
  for (int i = static_cast<int>(threadIdx.x); i < (choices + 3) / 4 * 4; i += static_cast<int>(blockDim.x))
    chunk.chosen[i] = i < choices ? from[i] : -1;
  __syncthreads();  // all choices are there
  return {first, choices};
}

// Calls body(choice, token, is_new) for the choices of an expert in order: `token` of the chunk, and whether it is not
// that of the choice before.
template <class Body>
__device__ __forceinline__ void for_each_choice(const Chunk& chunk, int choices, int expert, int per_token, Body body) {
  int last = -1;
  for (int first = 0; first < choices; first += 4) {
    const uint4 words = load_vector<uint4>(chunk.chosen + first);
    const uint32_t four[4] = {words.x, words.y, words.z, words.w};
    LATHE_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (four[i] != static_cast<uint32_t>(expert)) continue;
      const int token = (first + i) / per_token;
      body(first + i, token, token != last);
      last = token;
    }
  }
}
__device__ __forceinline__ int count_tokens(const Chunk& chunk, int choices, int expert, int per_token) {
  int count = 0;
  for_each_choice(chunk, choices, expert, per_token, [&](int, int, bool is_new) { count += is_new ? 1 : 0; });
  return count;
}

__global__ void __launch_bounds__(most_experts) count_choices_kernel(GroupManyArgs a) {
  begin_dependent();
  Chunk& chunk = block_shared<Chunk>();
  const int expert = static_cast<int>(threadIdx.x), experts = static_cast<int>(a.experts);
  const int choices = read_chunk(chunk, a).choices;
  if (expert < experts)
    a.counts[int64_t{blockIdx.x} * experts + expert] =
        count_tokens(chunk, choices, expert, static_cast<int>(a.per_token));
}

// Of each expert how many, then how many there are of those before it; the last is of all.
struct Placing {
  Chunk chunk;
  int32_t slots[most_experts + 1], groups[most_experts + 1];
};

// By one warp, of which a lane has neighbours.
__device__ __forceinline__ void sum_before(int32_t* counts, int experts, int lane) {
  const int each = (experts + 31) / 32, begin = lane * each, end = begin + each < experts ? begin + each : experts;
  int own = 0;
  for (int e = begin; e < end; ++e) own += counts[e];
  int sum = own;  // of this lane and those before
  LATHE_UNROLL
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const int before = __shfl_up_sync(full_warp, sum, lanes);
    sum += lane >= lanes ? before : 0;
  }
  if (lane == 31) counts[experts] = sum;
  sum -= own;
  for (int e = begin; e < end; ++e) {
    const int count = counts[e];
    counts[e] = sum;
    sum += count;
  }
}

// By the first block alone.
__device__ __forceinline__ void list_groups(const Placing& placing, const GroupManyArgs& a, int expert, int experts) {
  const GroupExpertsArgs& out = a.groups;
  if (expert < experts) {
    int slot = placing.slots[expert];
    for (int group = placing.groups[expert]; group < placing.groups[expert + 1]; ++group) {
      out.experts[group] = expert;
      out.bounds[group] = slot;
      slot += static_cast<int>(a.rows);
    }
    if (a.begins != nullptr) a.begins[expert] = placing.groups[expert];
  }
  if (expert == 0 && a.begins != nullptr) a.begins[experts] = placing.groups[experts];
  for (int64_t none = placing.groups[experts] + expert; none <= out.groups; none += blockDim.x) {
    out.bounds[none] = placing.slots[experts];
    if (none < out.groups) out.experts[none] = 0;
  }
}

__global__ void __launch_bounds__(most_experts) place_choices_kernel(GroupManyArgs a) {
  begin_dependent();
  Placing& placing = block_shared<Placing>();
  const int expert = static_cast<int>(threadIdx.x), experts = static_cast<int>(a.experts);
  const int per_token = static_cast<int>(a.per_token), rows = static_cast<int>(a.rows);
  const ChunkPlace place = read_chunk(placing.chunk, a);
  int before = 0;  // of this expert in the chunks before
  if (expert < experts) {
    int all = a.counts == nullptr ? count_tokens(placing.chunk, place.choices, expert, per_token) : 0;
#pragma unroll 4
    for (unsigned chunk = 0; a.counts != nullptr && chunk < gridDim.x; ++chunk) {
      const int count = a.counts[int64_t{chunk} * experts + expert];
      before += chunk < blockIdx.x ? count : 0;
      all += count;
    }
    placing.slots[expert] = all;
    placing.groups[expert] = (all + rows - 1) / rows;
  }
  __syncthreads();  // every expert's number is known
  if (threadIdx.x < 32) {
    sum_before(placing.slots, experts, expert);
    sum_before(placing.groups, experts, expert);
  }
  __syncthreads();  // and where it begins
  if (expert < experts) {
    int slot = placing.slots[expert] + before - 1;
    const int64_t first_choice = int64_t{place.first_token} * per_token;
    for_each_choice(placing.chunk, place.choices, expert, per_token, [&](int choice, int token, bool is_new) {
      if (is_new) a.groups.tokens[++slot] = place.first_token + token;
      a.groups.slots[first_choice + choice] = slot;
    });
  }
  if (blockIdx.x == 0) list_groups(placing, a, expert, experts);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void group_many_experts(const GroupManyArgs& args) {
  using namespace LATHE_CUDA_NAMESPACE;
  const auto config = [&](const char* name) {
    return LaunchConfig{.name = name,
                        .grid = dim3(static_cast<unsigned>(args.chunks)),
                        .block = dim3(static_cast<unsigned>((args.experts + 31) / 32 * 32))};
  };
  if (args.counts != nullptr) launch_dependent(config("count_choices"), count_choices_kernel, args);
  launch_dependent(config("place_choices"), place_choices_kernel, args);
}
template void group_many_experts<DeviceKind::LATHE_CUDA_NAMESPACE>(const GroupManyArgs&);

}  // namespace lathe::kernels
