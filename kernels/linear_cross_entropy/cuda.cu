// A block for each row of logits. Its statistics (row_statistics.cuh) are merged from those that the product left of
// each 64 columns, or else made in a pass over the logits; another pass, where it is asked for, overwrites the logits
// with their gradient. With the product's statistics logits are written once, read once and written as gradients once:
// for bf16 10 bytes a logit, beside 4 · H operations of the two products.
#include "kernels/cuda/dependent_launch.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/row.h"
#include "kernels/linear_cross_entropy/cuda.h"
#include "kernels/linear_cross_entropy/row_statistics.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int threads = statistics_threads, warps = statistics_warps;  // of a chunk of 256 rows an SM holds two blocks
constexpr int stride = threads * group_elements;

struct Reduction {
  StatisticsOfWarps statistics;
  float moments[warps], squares[warps];
  int earlier[warps];
};

// The block's token or label.
__device__ __forceinline__ int64_t number_of_block(const RowNumbers& sent, const int32_t* stored) {
  return stored != nullptr ? stored[blockIdx.x] : sent.at[blockIdx.x];
}

// Eight logits from column i on, as the statistics have them; −∞ past the row's end.
__device__ __forceinline__ void scale_group(Group& group, int64_t i, const LogitsRow& row) {
  const int left = group_size(row.columns, i);
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j)
    group.at[j] = j < left ? scaled_logit(group.at[j], row.softcap, row.inverse_temperature) : -INFINITY;
}

// `count` groups, a stride from one to the next, as they lie in memory: nothing is done with a number before all of
// them have been asked for.
template <bool aligned, int count>
__device__ __forceinline__ void read_groups(Group (&groups)[count], const LogitsRow& row, int64_t first) {
  if (aligned && first + (count - 1) * stride + group_elements <= row.columns) {
    LATHE_UNROLL
    for (int n = 0; n < count; ++n) groups[n] = load_group<true>(row.z + first + n * stride, group_elements);
    return;
  }
  LATHE_UNROLL
  for (int n = 0; n < count; ++n) {
    const int64_t i = first + n * stride;
    groups[n] = load_group<aligned>(row.z + i, group_size(row.columns, i));
  }
}

struct RowMoments {
  float moment, squares;  // Σ exp(d) · d and Σ exp(2d), d = z − max z
};

// The same in every thread.
template <bool aligned>
__device__ __forceinline__ RowMoments moments_of(const LogitsRow& logits, float largest, Reduction& shared) {
  constexpr int together = 2;
  float moment = 0.0f, squares = 0.0f;
  for (int64_t first = threadIdx.x * group_elements; first < logits.columns; first += together * stride) {
    Group groups[together];
    read_groups<aligned>(groups, logits, first);
    LATHE_UNROLL
    for (int n = 0; n < together; ++n) {
      scale_group(groups[n], first + n * stride, logits);
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) {
        const float distance = groups[n].at[j] - largest, e = expf(distance);
        moment = fmaf(e, fmaxf(distance, -200.0f), moment);
        squares = fmaf(e, e, squares);
      }
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

// exp of a logit's distance from the largest, as its gradient has it: of 16 bits no more than that.
template <class T>
__device__ __forceinline__ float gradient_exp(float distance) {
  return sizeof(T) == sizeof(float) ? expf(distance) : exp_of_distance(distance);
}

// A token's gradient: slope · (softmax − onehot), with the entropy's share, and through the cap.
struct GradientOfRow {
  RowStatistics row;
  float slope;          // of the loss
  float factor;         // slope ÷ Σ exp
  float entropy_slope;  // 0: none
  float beside;         // entropy − log Σ exp
  float inverse_cap;    // of softcap over the temperature; 0: none
  float at_label = 0.0f;

  // `of_loss` with the rest; plain: there is none.
  template <bool plain>
  __device__ __forceinline__ float with_rest(float of_loss, float logit, float distance, float e) const {
    if (plain) return of_loss;
    float gradient = of_loss;
    if (entropy_slope != 0.0f) gradient -= entropy_slope * (e / row.sum * (fmaxf(distance, -200.0f) + beside));
    if (inverse_cap == 0.0f) return gradient;
    const float ratio = logit * inverse_cap;
    return gradient * (1.0f - ratio * ratio);
  }
};

// What the second pass finds on its way.
struct Measured {
  float moment = 0.0f;   // Σ exp(d) · d, d = z − max z
  bool earlier = false;  // a column before the label's has the largest logit
};

// A group's logits, from column i on, become their gradients. `first_of_equals`: whether the label has the largest
// logit, so that it matters who has it before.
template <class T, bool plain>
__device__ __forceinline__ void turn_into_gradients(Group& group, int64_t i, int64_t label, const GradientOfRow& g,
                                                    bool first_of_equals, Measured& measured) {
  if (first_of_equals && i < label) {
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j)
      measured.earlier = measured.earlier || (i + j < label && group.at[j] == g.row.largest);
  }
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j) {
    const float logit = group.at[j], distance = logit - g.row.largest, e = gradient_exp<T>(distance);
    measured.moment = fmaf(e, fmaxf(distance, -200.0f), measured.moment);  // where e is 0 so is the product, for −∞ too
    group.at[j] = g.with_rest<plain>(e * g.factor, logit, distance, e);
  }
  if (label < i || label >= i + group_elements) return;
  LATHE_UNROLL
  for (int j = 0; j < group_elements; ++j)
    if (i + j == label) group.at[j] = g.at_label;
}

// The second pass. T is the gradient's type: where it is narrower than a logit, what is written at column i lies on the
// logits at i / 2, and a barrier keeps it behind the reading of all columns up to i. Groups are loaded while those
// before them are turned into gradients: 64 KiB of a multiprocessor under way all the time.
template <class T, bool aligned, bool plain>
__device__ __forceinline__ Measured overwrite_with_gradients(const CrossEntropyRowsCuda& a, const LogitsRow& logits,
                                                             float* z, int64_t label, const GradientOfRow& g,
                                                             bool first_of_equals) {
  constexpr int together = 4;
  Measured measured;
  Group next[together];
  read_groups<aligned>(next, logits, threadIdx.x * group_elements);
  for (int64_t begin = 0; begin < a.columns; begin += together * stride) {
    const int64_t first = begin + threadIdx.x * group_elements;
    Group groups[together];
    LATHE_UNROLL
    for (int n = 0; n < together; ++n) groups[n] = next[n];
    read_groups<aligned>(next, logits, first + together * stride);
    LATHE_UNROLL
    for (int n = 0; n < together; ++n) {
      scale_group(groups[n], first + n * stride, logits);
      turn_into_gradients<T, plain>(groups[n], first + n * stride, label, g, first_of_equals, measured);
    }
    if (!a.gradient) continue;  // the whole block
    if (sizeof(T) < sizeof(float)) __syncthreads();
    LATHE_UNROLL
    for (int n = 0; n < together; ++n) {
      const int64_t i = first + n * stride;
      if (i < a.columns) store_group<aligned>(reinterpret_cast<T*>(z) + i, groups[n], group_size(a.columns, i));
    }
  }
  return measured;
}

template <bool aligned>
__device__ __forceinline__ RowStatistics statistics_of(const CrossEntropyRowsCuda& a, const LogitsRow& logits,
                                                       Reduction& shared) {
  const RowStatistics own = a.statistics != nullptr
                                ? thread_statistics(a.statistics + 2 * int64_t{blockIdx.x} * a.groups, a.groups)
                                : thread_statistics<aligned>(logits);
  return row_statistics(own, shared.statistics);
}

// What the whole block has measured, by its first thread.
__device__ __forceinline__ void write_measured(const CrossEntropyRowsCuda& a, int64_t token, RowStatistics row,
                                               bool label_has_largest, Measured measured, Reduction& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float warp_moment = warp_sum(measured.moment);
  const int warp_earlier = __any_sync(full_warp, measured.earlier);
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
  if (a.correct != nullptr) a.correct[token] = label_has_largest && any == 0 ? 1 : 0;
}

template <class T, bool aligned, bool plain>
__global__ void __launch_bounds__(threads, 2) cross_entropy_kernel(CrossEntropyRowsCuda a) {
  begin_dependent();
  Reduction& shared = block_shared<Reduction>();
  float* z = a.logits + int64_t{blockIdx.x} * a.stride;
  const int64_t token = number_of_block(a.tokens, a.stored_tokens), label = number_of_block(a.labels, a.stored_labels);
  const LogitsRow logits{z, a.columns, plain ? 0.0f : a.softcap, a.inverse_temperature};
  const RowStatistics row = statistics_of<aligned>(a, logits, shared);
  // Nobody has looked at a stored label.
  const float raw_label_logit = label >= 0 && label < a.columns ? z[label] : NAN;
  const float label_logit = scaled_logit(raw_label_logit, logits.softcap, logits.inverse_temperature);
  if (threadIdx.x == 0 && a.loss != nullptr) a.loss[token] = -log_probability(label_logit, row);
  if (!a.gradient && a.entropy == nullptr && a.correct == nullptr && a.log_sum_sq_probs == nullptr)
    return;  // the whole block
  const bool entropy_counts = a.gradient && a.entropy_scales != nullptr;
  RowMoments moments{0.0f, 0.0f};
  if (entropy_counts || a.log_sum_sq_probs != nullptr) moments = moments_of<aligned>(logits, row.largest, shared);
  if (threadIdx.x == 0 && a.log_sum_sq_probs != nullptr)
    a.log_sum_sq_probs[token] = log_of_sum(moments.squares) - 2.0f * log_of_sum(row.sum);
  const float scale = a.token_scales != nullptr ? a.scale * a.token_scales[token] : a.scale;
  GradientOfRow g{.row = row, .slope = scale * a.inverse_temperature};
  g.factor = g.slope / row.sum;
  g.entropy_slope = entropy_counts ? a.entropy_scales[token] * a.inverse_temperature : 0.0f;
  g.beside = -moments.moment / row.sum;
  g.inverse_cap = a.softcap > 0.0f ? 1.0f / (a.softcap * a.inverse_temperature) : 0.0f;
  const float distance = label_logit - row.largest, e = gradient_exp<T>(distance);
  g.at_label = g.with_rest<plain>(g.slope * (e / row.sum - 1.0f), label_logit, distance, e);
  __syncthreads();  // every thread has read the label's logit
  const bool label_has_largest = label_logit == row.largest;
  const Measured measured = overwrite_with_gradients<T, aligned, plain>(a, logits, z, label, g, label_has_largest);
  write_measured(a, token, row, label_has_largest, measured, shared);
}

template <bool aligned>
__global__ void __launch_bounds__(threads) token_logprob_kernel(TokenLogprobsCuda a) {
  Reduction& shared = block_shared<Reduction>();
  const int64_t r = blockIdx.x;
  const float* z = a.logits + r * a.stride;
  const int64_t target = a.targets != nullptr ? a.targets[r] : a.listed.at[r];
  const RowStatistics row = row_statistics(thread_statistics<aligned>({z, a.columns}), shared.statistics);
  if (threadIdx.x != 0) return;
  a.logprobs[r] = target >= 0 && target < a.columns ? log_probability(z[target], row) : NAN;
}

template <class Unit>
__global__ void __launch_bounds__(256) move_rows_kernel(MoveRowsCuda a) {
  char* row = static_cast<char*>(a.matrix) + number_of_block(a.tokens, a.stored_tokens) * a.matrix_stride_bytes;
  char* packed = static_cast<char*>(a.packed) + int64_t{blockIdx.x} * a.packed_stride_bytes;
  char* to = a.gather ? packed : row;
  const char* from = a.gather ? row : packed;
  for (int64_t i = threadIdx.x * int64_t{sizeof(Unit)}; i < a.row_bytes; i += 256 * int64_t{sizeof(Unit)})
    store_vector<Unit>(to + i, load_vector<Unit>(from + i));
}

// All instances there are: three dtypes times plain, aligned, any.
template <class T>
void cross_entropy(const CrossEntropyRowsCuda& args) {
  const LaunchConfig config{
      .name = "cross_entropy", .grid = dim3(static_cast<unsigned>(args.rows)), .block = dim3(threads)};
  const bool plain = args.softcap == 0.0f && args.entropy_scales == nullptr;
  launch_dependent(config,
                   !rows_aligned(args.logits, args.stride) ? cross_entropy_kernel<T, false, false>
                   : plain                                 ? cross_entropy_kernel<T, true, true>
                                                           : cross_entropy_kernel<T, true, false>,
                   args);
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
