// A block for each row of logits: one pass finds the largest logit and Σ exp together (online softmax, Milakov &
// Gimelshein 2018), a second, where it is asked for, overwrites the logits with their gradient. Logits are read twice
// and written once: 12 bytes a logit, beside 4 · H operations of the two products (at 3 TB/s and 400 TFLOP/s a tenth of
// the time for H = 4096; not timed).
//
// A row's statistics are those of row_statistics.cuh.
#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"
#include "kernels/linear_cross_entropy/cuda.h"
#include "kernels/linear_cross_entropy/row_statistics.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = statistics_threads, warps = statistics_warps;  // of a chunk of 256 rows an SM holds two blocks
constexpr int stride = statistics_stride;

struct Reduction {
  StatisticsOfWarps statistics;
  float moments[warps], squares[warps];
  int earlier[warps];
};

template <bool aligned>
__device__ __forceinline__ RowStatistics statistics_of(const float* z, int64_t columns, float softcap,
                                                       float inverse_temperature, Reduction& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  return row_statistics(thread_statistics<aligned>(z, columns, softcap, inverse_temperature, thread),
                        shared.statistics);
}

struct RowMoments {
  float moment, squares;  // Σ exp(d) · d and Σ exp(2d), d = z − max z
};

// The same in every thread.
template <bool aligned>
__device__ __forceinline__ RowMoments moments_of(const float* z, int64_t columns, float softcap,
                                                 float inverse_temperature, float largest, Reduction& shared) {
  float moment = 0.0f, squares = 0.0f;
  for (int64_t i = threadIdx.x * group_elements; i < columns; i += stride) {
    const Group group = load_logits<aligned>(z, i, columns, softcap, inverse_temperature);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) {
      if (j >= columns - i) continue;
      const float distance = group.at[j] - largest, e = expf(distance);
      moment = fmaf(e, fmaxf(distance, -200.0f), moment);
      squares = fmaf(e, e, squares);
    }
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float warp_moment = warp_sum(moment), warp_squares = warp_sum(squares);
  if (lane == 0) {
    shared.moments[warp] = warp_moment;
    shared.squares[warp] = warp_squares;
  }
  __syncthreads();  // the warps' sums are there
  RowMoments row{0.0f, 0.0f};
  for (int w = 0; w < warps; ++w) {
    row.moment += shared.moments[w];
    row.squares += shared.squares[w];
  }
  __syncthreads();  // every thread has read them
  return row;
}

__device__ __forceinline__ float capped(float logit, float softcap) {
  return softcap > 0.0f ? softcap * tanhf(logit / softcap) : logit;
}

// T is the gradient's type. Where it is narrower than a logit, what is written at column i lies on the logits at i / 2:
// a barrier keeps it behind the reading of all columns up to i.
template <class T, bool aligned>
__global__ void __launch_bounds__(threads) cross_entropy_kernel(CrossEntropyRowsCuda a) {
  Reduction& shared = block_shared<Reduction>();
  float* z = a.logits + int64_t{blockIdx.x} * a.stride;
  const int64_t token = a.tokens.at[blockIdx.x], label = a.labels.at[blockIdx.x];
  const RowStatistics row = statistics_of<aligned>(z, a.columns, a.softcap, a.inverse_temperature, shared);
  const float label_logit = __fmul_rn(capped(z[label], a.softcap), a.inverse_temperature);
  if (threadIdx.x == 0 && a.loss != nullptr) a.loss[token] = -log_probability(label_logit, row);
  if (!a.gradient && a.entropy == nullptr && a.correct == nullptr && a.log_sum_sq_probs == nullptr)
    return;  // the whole block
  const bool entropy_counts = a.gradient && a.entropy_scales != nullptr;
  RowMoments moments{0.0f, 0.0f};
  if (entropy_counts || a.log_sum_sq_probs != nullptr)
    moments = moments_of<aligned>(z, a.columns, a.softcap, a.inverse_temperature, row.largest, shared);
  if (threadIdx.x == 0 && a.log_sum_sq_probs != nullptr)
    a.log_sum_sq_probs[token] = log_of_sum(moments.squares) - 2.0f * log_of_sum(row.sum);
  const float entropy_slope = entropy_counts ? a.entropy_scales[token] * a.inverse_temperature : 0.0f;
  const float beside = -moments.moment / row.sum;  // entropy − log Σ exp
  // Every thread has read the label's logit.
  __syncthreads();

  const float scale = a.token_scales != nullptr ? a.scale * a.token_scales[token] : a.scale;
  const float slope = scale * a.inverse_temperature, factor = slope / row.sum;
  const float inverse_cap = a.softcap > 0.0f ? 1.0f / (a.softcap * a.inverse_temperature) : 0.0f;
  float moment = 0.0f;   // Σ exp(d) · d, d = z − max z
  bool earlier = false;  // a column before the label's has the largest logit
  const auto turn_into_gradients = [&](Group& group, int64_t i) {
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) {
      if (i + j >= a.columns) continue;
      const float logit = group.at[j], distance = logit - row.largest, e = expf(distance);
      moment = fmaf(e, fmaxf(distance, -200.0f), moment);  // where e is 0 the product is 0, even for −∞
      earlier = earlier || (i + j < label && logit == row.largest);
      float gradient = i + j == label ? slope * (e / row.sum - 1.0f) : e * factor;
      if (entropy_counts) gradient -= entropy_slope * (e / row.sum * (fmaxf(distance, -200.0f) + beside));
      const float ratio = logit * inverse_cap;
      if (a.softcap > 0.0f) gradient *= 1.0f - ratio * ratio;
      group.at[j] = gradient;
    }
  };
  constexpr int together = 4;  // groups whose loads are under way together, and barriers for each of which are one
  for (int64_t begin = 0; begin < a.columns; begin += together * stride) {
    const int64_t first = begin + threadIdx.x * group_elements;
    Group groups[together];
    LATHE_UNROLL
    for (int g = 0; g < together; ++g)
      groups[g] = load_logits<aligned>(z, first + g * stride, a.columns, a.softcap, a.inverse_temperature);
    LATHE_UNROLL
    for (int g = 0; g < together; ++g) turn_into_gradients(groups[g], first + g * stride);
    if (!a.gradient) continue;  // the whole block
    if (sizeof(T) < sizeof(float)) __syncthreads();
    LATHE_UNROLL
    for (int g = 0; g < together; ++g) {
      const int64_t i = first + g * stride, left = a.columns - i;
      if (left > 0)
        store_group<aligned>(reinterpret_cast<T*>(z) + i, groups[g],
                             left < group_elements ? static_cast<int>(left) : group_elements);
    }
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float warp_moment = warp_sum(moment);
  const int warp_earlier = __any_sync(full_warp, earlier);
  if (lane == 0) {
    shared.moments[warp] = warp_moment;
    shared.earlier[warp] = warp_earlier;
  }
  __syncthreads();  // the warps' results are there
  if (threadIdx.x != 0) return;
  float total = 0.0f;
  int any = 0;
  for (int w = 0; w < warps; ++w) {
    total += shared.moments[w];
    any |= shared.earlier[w];
  }
  if (a.entropy != nullptr) a.entropy[token] = log_of_sum(row.sum) - total / row.sum;
  if (a.correct != nullptr) a.correct[token] = label_logit == row.largest && any == 0 ? 1 : 0;
}

template <bool aligned>
__global__ void __launch_bounds__(threads) token_logprob_kernel(TokenLogprobsCuda a) {
  Reduction& shared = block_shared<Reduction>();
  const int64_t r = blockIdx.x;
  const float* z = a.logits + r * a.stride;
  const int64_t target = a.targets != nullptr ? a.targets[r] : a.listed.at[r];
  const RowStatistics row = statistics_of<aligned>(z, a.columns, 0.0f, 1.0f, shared);
  if (threadIdx.x != 0) return;
  a.logprobs[r] = target >= 0 && target < a.columns ? log_probability(z[target], row) : NAN;
}

template <class Unit>
__global__ void __launch_bounds__(256) move_rows_kernel(MoveRowsCuda a) {
  char* row = static_cast<char*>(a.matrix) + int64_t{a.tokens.at[blockIdx.x]} * a.matrix_stride_bytes;
  char* packed = static_cast<char*>(a.packed) + int64_t{blockIdx.x} * a.packed_stride_bytes;
  char* to = a.gather ? packed : row;
  const char* from = a.gather ? row : packed;
  for (int64_t i = threadIdx.x * int64_t{sizeof(Unit)}; i < a.row_bytes; i += 256 * int64_t{sizeof(Unit)})
    store_vector<Unit>(to + i, load_vector<Unit>(from + i));
}

template <class T>
void cross_entropy(const CrossEntropyRowsCuda& args) {
  const LaunchConfig config{
      .name = "cross_entropy", .grid = dim3(static_cast<unsigned>(args.rows)), .block = dim3(threads)};
  launch(config,
         rows_aligned(args.logits, args.stride) ? cross_entropy_kernel<T, true> : cross_entropy_kernel<T, false>, args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void cross_entropy_rows(const CrossEntropyRowsCuda& args) {
  with_element(args.gradient_dtype, [&]<class T>(T) { cross_entropy<T>(args); });
}
template void cross_entropy_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const CrossEntropyRowsCuda&);

template <DeviceKind>
void token_logprob_rows(const TokenLogprobsCuda& args) {
  const LaunchConfig config{
      .name = "token_logprobs", .grid = dim3(static_cast<unsigned>(args.rows)), .block = dim3(threads)};
  launch(config, rows_aligned(args.logits, args.stride) ? token_logprob_kernel<true> : token_logprob_kernel<false>,
         args);
}
template void token_logprob_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const TokenLogprobsCuda&);

template <DeviceKind>
void move_token_rows(const MoveRowsCuda& args) {
  const LaunchConfig config{
      .name = "move_token_rows", .grid = dim3(static_cast<unsigned>(args.rows)), .block = dim3(256)};
  const auto multiple_of_16 = [](const void* data, int64_t stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 16 == 0;
  };
  const bool wide = multiple_of_16(args.matrix, args.matrix_stride_bytes) &&
                    multiple_of_16(args.packed, args.packed_stride_bytes) && args.row_bytes % 16 == 0;
  launch(config, wide ? move_rows_kernel<uint4> : move_rows_kernel<uint16_t>, args);
}
template void move_token_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const MoveRowsCuda&);

}  // namespace lathe::kernels
