// A warp for each head of a token, a lane for eight of its elements: they stay in registers from the product's result
// to the page. What is rounded between the operations that this stands for is rounded here.
#include "kernels/rope_append/cuda.h"

#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/indices.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/row.h"
#include "kernels/paged_attention/append.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int block_warps = 4;

template <class T>
__device__ __forceinline__ void round_to(Group& group) {
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j]));
}

// rms_norm_forward of one row, whose lanes have a group each, or none.
template <class T>
__device__ __forceinline__ void norm_row(Group& group, const void* weight, int d, const RopeAppendCuda& a) {
  float squares = 0.0f;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) squares = fmaf(group.at[j], group.at[j], squares);
  const float r = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(a.append.head_dim) + a.eps);
  Group factors = {};
  if (d < a.append.head_dim) factors = load_group<true>(static_cast<const T*>(weight) + d, group_elements);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j] * r)) * factors.at[j];
  round_to<T>(group);
}

// rope's forward: lanes of the lower half of what turns have their partners in the upper one.
template <class T>
__device__ __forceinline__ void turn_row(Group& group, int64_t position, int64_t first_row, int d,
                                         const RopeAppendCuda& a) {
  const int half = static_cast<int>(a.turned / 2);
  const bool is_lower = d < half, turns = d < 2 * half;
  const int partner = static_cast<int>(threadIdx.x % 32) + (!turns ? 0 : is_lower ? half : -half) / group_elements;
  Group other;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) other.at[j] = __shfl_sync(full_warp, group.at[j], partner);
  if (!turns) return;
  const int column = is_lower ? d : d - half;
  Group cosine, sine;
  if (position >= 0 && position < a.table_rows) {
    const int64_t row = first_row + position;
    cosine = load_group<true>(a.cos_table + row * a.cos_row + column, group_elements);
    sine = load_group<true>(a.sin_table + row * a.sin_row + column, group_elements);
  } else {
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) cosine.at[j] = sine.at[j] = nanf("");
  }
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    const float across = other.at[j] * sine.at[j];
    group.at[j] = fmaf(group.at[j], cosine.at[j], is_lower ? -across : across);
  }
  round_to<T>(group);
}

// Where a token goes.
struct TokenPlace {
  int64_t page, offset;
};

// The row's place in its page.
template <class T>
__device__ __forceinline__ void append_row(const Group& group, const PageSide& side, TokenPlace place, int64_t head,
                                           int d, const KvAppendCuda& a) {
  const auto [page, offset] = place;
  const int64_t to = page * side.page + head * side.head + offset * side.token;
  const bool inside = d < a.head_dim;
  if (a.page_dtype == DType::i8) {
    float most = 0.0f;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) most = fmaxf(most, fabsf(group.at[j]));
    const ByteScale of_row = byte_scale(warp_max(most));
    if (d == 0) side.scales[(page * a.kv_heads + head) * a.page_size + offset] = of_row.scale;
    if (inside) store_i8(static_cast<int8_t*>(side.data) + to, d, a.head_dim, true, group, of_row.factor);
    return;
  }
  if (!inside) return;
  switch (a.page_dtype) {
    case DType::f32: return store_group<true>(static_cast<float*>(side.data) + to + d, group, group_elements);
    case DType::bf16: return store_group<true>(static_cast<bf16_t*>(side.data) + to + d, group, group_elements);
    default: return store_group<true>(static_cast<f16_t*>(side.data) + to + d, group, group_elements);
  }
}

__device__ __forceinline__ const void* stored(const StoredIndices& positions) { return positions.data; }
__device__ __forceinline__ const void* stored(const SentIndices&) { return nullptr; }

// Before anything may be read: what says where the first tokens stand and go comes into the second-level cache.
template <class Positions>
__device__ __forceinline__ void prefetch_places(const PagedSteps& batch, const Positions& positions, int64_t first) {
  if (threadIdx.x == 0) prefetch_line(batch.token_page + first);
  if (threadIdx.x == 1) prefetch_line(batch.token_offset + first);
  if (threadIdx.x == 2 && stored(positions) != nullptr) prefetch_line(stored(positions));
}

// Tokens [first, first + count) of the batch.
template <class T, class Positions>
__global__ void __launch_bounds__(block_warps * 32)
    rope_append_kernel(RopeAppendCuda a, Positions positions, int64_t first, int64_t count) {
  const int64_t heads = a.heads + 2 * a.append.kv_heads;
  const int64_t row = int64_t{blockIdx.x} * block_warps + threadIdx.x / 32;
  launch_dependents();
  prefetch_places(a.append.batch, positions, first);
  grid_dependency_wait();
  if (row >= count * heads) return;  // a whole warp leaves
  const int64_t within = row / heads, token = first + within;
  const int64_t head = row % heads;
  const int64_t key = head - a.heads, value = key - a.append.kv_heads;  // which of them it is, if not negative
  const HeadRows& from = value >= 0 ? a.v : key >= 0 ? a.k : a.q;
  const int64_t number = value >= 0 ? value : key >= 0 ? key : head;
  T* const x = static_cast<T*>(from.data) + token * from.token + number * from.head;

  const int d = static_cast<int>(threadIdx.x % 32) * group_elements;
  Group group = {};
  // All that the row needs is on its way together.
  if (d < a.append.head_dim) group = load_group<true>(x + d, group_elements);
  const int64_t position = value < 0 && a.turned > 0 ? positions[within] : 0;
  TokenPlace place{};
  if (key >= 0) place = {a.append.batch.token_page[token], a.append.batch.token_offset[token]};
  if (value < 0) {
    const void* const weight = key >= 0 ? a.k_norm : a.q_norm;
    if (weight != nullptr) norm_row<T>(group, weight, d, a);
    if (a.turned > 0) turn_row<T>(group, position, key >= 0 ? 0 : a.query_row, d, a);
  }
  if (key >= 0)
    return append_row<T>(group, value >= 0 ? a.append.v_pages : a.append.k_pages, place, number, d, a.append);
  if (d < a.append.head_dim) store_group<true>(x + d, group, group_elements);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void rope_append_rows(const RopeAppendCuda& args) {
  const int64_t heads = args.heads + 2 * args.append.kv_heads;
  for_each_launch(args.positions, args.append.batch.tokens,
                  [&]<class Positions>(const Positions& positions, int64_t first, int64_t count) {
                    const LaunchConfig config{
                        .name = "rope_append",
                        .grid = dim3(static_cast<unsigned>((count * heads + block_warps - 1) / block_warps)),
                        .block = dim3(block_warps * 32)};
                    with_element(args.dtype, [&]<class T>(T) {
                      launch_dependent(config, rope_append_kernel<T, Positions>, args, positions, first, count);
                    });
                  });
}
template void rope_append_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RopeAppendCuda&);

}  // namespace lathe::kernels
