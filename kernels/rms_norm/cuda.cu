// A row's sums are those of kernels/cuda/row.h. Bound by bandwidth: rows up to 8192 stay in registers, of longer ones x
// is read twice, the second time from the cache. Alone, a row is three waits: for the kernel before, for memory and for
// the other warps; so all that it reads is asked for at once.
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/ptx/grid_dependency.h"
#include "kernels/cuda/row.h"
#include "kernels/rms_norm/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

template <class T, bool aligned, int warps_of_row>
__global__ void __launch_bounds__(RowThreads<warps_of_row>::threads) rms_norm_forward_kernel(RmsNormForwardArgs a) {
  using R = RowThreads<warps_of_row>;
  RowSum<warps_of_row> row_sum;
  const int64_t row = R::row();
  begin_dependent();
  if (row >= a.row_end) return;  // all of a row's warps leave
  const T* x = row_of<T>(a.x, row);
  float squares = 0.0f;
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    Group group = load_group<aligned>(x + i, count);
    if (a.residual.data != nullptr) {
      const Group residual = load_group<aligned>(row_of<T>(a.residual, row) + i, count);
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j] + residual.at[j]));
      store_group<aligned>(row_of<T>(a.sum, row) + i, group, count);
    }
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) squares = fmaf(group.at[j], group.at[j], squares);
  }
  const float r = 1.0f / sqrtf(row_sum(squares) / static_cast<float>(a.columns) + a.eps);
  if (R::first_column() == 0 && a.rstd != nullptr) a.rstd[row] = r;

  const T* normed = a.residual.data != nullptr ? row_of<T>(a.sum, row) : x;  // each thread reads what it wrote
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    Group group = load_group<aligned>(normed + i, count);
    const Group weight = load_group<aligned>(static_cast<const T*>(a.weight) + i, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j] * r)) * weight.at[j];
    store_group<aligned>(row_of<T>(a.out, row) + i, group, count);
  }
}

// The same for aligned rows of at most `groups` groups to a thread, which stay in registers.
template <class T, int warps_of_row, int groups>
__global__ void __launch_bounds__(RowThreads<warps_of_row>::threads) rms_norm_kept_kernel(RmsNormForwardArgs a) {
  using R = RowThreads<warps_of_row>;
  RowSum<warps_of_row> row_sum;
  const int64_t row = R::row();
  const int first = R::first_column(), columns = static_cast<int>(a.columns);
  const T* const weight_row = static_cast<const T*>(a.weight);
  launch_dependents();
  if (row == 0) {
    LATHE_UNROLL
    for (int g = 0; g < groups; ++g)
      if (first + g * R::step < columns) prefetch_line(weight_row + first + g * R::step);
  }
  grid_dependency_wait();
  if (row >= a.row_end) return;  // all of a row's warps leave
  const bool adds = a.residual.data != nullptr;
  Group kept[groups], residual[groups], weight[groups];
  const auto each_group = [&](auto body) {
    LATHE_UNROLL
    for (int g = 0; g < groups; ++g) {
      const int i = first + g * R::step;
      if (i < columns) body(g, i, group_size(columns, i));
    }
  };
  each_group([&](int g, int i, int count) {
    kept[g] = load_group<true>(row_of<T>(a.x, row) + i, count);
    if (adds) residual[g] = load_group<true>(row_of<T>(a.residual, row) + i, count);
    weight[g] = load_group<true>(weight_row + i, count);
  });
  float squares = 0.0f;
  each_group([&](int g, int i, int count) {
    Group& group = kept[g];
    if (adds) {
      LATHE_UNROLL
      for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j] + residual[g].at[j]));
      store_group<true>(row_of<T>(a.sum, row) + i, group, count);
    }
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) squares = fmaf(group.at[j], group.at[j], squares);
  });
  const float r = 1.0f / sqrtf(row_sum(squares) / static_cast<float>(a.columns) + a.eps);
  if (first == 0 && a.rstd != nullptr) a.rstd[row] = r;
  each_group([&](int g, int i, int count) {
    Group& group = kept[g];
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) group.at[j] = to_float(from_float<T>(group.at[j] * r)) * weight[g].at[j];
    store_group<true>(row_of<T>(a.out, row) + i, group, count);
  });
}

template <class T, bool aligned>
void launch_forward(const RmsNormForwardArgs& args) {
  const auto start = [&](void (*long_rows)(RmsNormForwardArgs)) {
    launch_rows<Launch::dependent>("rms_norm_forward",
                                   aligned ? rms_norm_kept_kernel<T, 1, 4> : rms_norm_forward_kernel<T, false, 1>,
                                   long_rows, args);
  };
  constexpr int64_t step = RowThreads<warps_of_long_row>::step;
  static_assert(short_row <= 4 * RowThreads<1>::step);
  if constexpr (aligned) {
    if (args.columns <= step) return start(rms_norm_kept_kernel<T, warps_of_long_row, 1>);
    if (args.columns <= 2 * step) return start(rms_norm_kept_kernel<T, warps_of_long_row, 2>);
    if (args.columns <= 4 * step) return start(rms_norm_kept_kernel<T, warps_of_long_row, 4>);
  }
  start(rms_norm_forward_kernel<T, aligned, warps_of_long_row>);
}

template <class T>
void forward(const RmsNormForwardArgs& args) {
  const bool aligned = rows_aligned<T>(args.x) && rows_aligned<T>(args.out) && rows_aligned<T>(args.residual) &&
                       rows_aligned<T>(args.sum) && rows_aligned(static_cast<const T*>(args.weight), 0);
  aligned ? launch_forward<T, true>(args) : launch_forward<T, false>(args);
}

template <class T, bool aligned, int warps_of_row>
__global__ void __launch_bounds__(RowThreads<warps_of_row>::threads) rms_norm_backward_kernel(RmsNormBackwardArgs a) {
  using R = RowThreads<warps_of_row>;
  RowSum<warps_of_row> row_sum;
  // From the last row on: the gradient of the weight, which comes before, has left the last ones in the second-level
  // cache.
  const int64_t row = a.row_end - 1 - R::row();
  if (row < 0) return;
  const float r = a.rstd[row];
  float products = 0.0f;
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    const Group x = load_group<aligned>(row_of<T>(a.x, row) + i, count);
    const Group grad = load_group<aligned>(row_of<T>(a.grad_out, row) + i, count);
    const Group weight = load_group<aligned>(static_cast<const T*>(a.weight) + i, count);
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j) products = fmaf(grad.at[j] * weight.at[j], x.at[j] * r, products);
  }
  const float mean = row_sum(products) / static_cast<float>(a.columns);
  for (int64_t i = R::first_column(); i < a.columns; i += R::step) {
    const int count = group_size(a.columns, i);
    const Group x = load_group<aligned>(row_of<T>(a.x, row) + i, count);
    const Group grad = load_group<aligned>(row_of<T>(a.grad_out, row) + i, count);
    const Group weight = load_group<aligned>(static_cast<const T*>(a.weight) + i, count);
    Group through = {};
    if (a.grad_sum.data != nullptr) through = load_group<aligned>(row_of<T>(a.grad_sum, row) + i, count);
    Group result;
    LATHE_UNROLL
    for (int j = 0; j < group_elements; ++j)
      result.at[j] = fmaf(r, fmaf(-(x.at[j] * r), mean, grad.at[j] * weight.at[j]), through.at[j]);
    store_group<aligned>(row_of<T>(a.grad_x, row) + i, result, count);
  }
}

// A block for 32 columns. Warp w sums the tokens w, w + 8, w + 16, … of a sequence, counted from its start; the eight
// sums are added in order, then the sequences in order: the bits depend on the sequence alone.
constexpr int weight_columns = 32, weight_warps = 8;

// Few columns make few blocks, and a warp's sum is one chain: so 64 KiB of a block's tokens are under way, each warp's
// own in stages of eight tokens. Sixteen tokens in registers, as where rows are not aligned, are 16 KiB, where memory
// wants some 40 of each multiprocessor.
template <class T>
struct TokenStage {
  static constexpr int tokens = 8, stages = 16 / sizeof(T);
  T x[tokens][weight_columns], grad[tokens][weight_columns];
};
template <class T, bool aligned>
using WeightResources =
    BlockResources<weight_warps * 32, 2,
                   aligned ? weight_warps * TokenStage<T>::stages* static_cast<int>(sizeof(TokenStage<T>)) : 0>;

// A warp's tokens of one sequence: first, first + 8, … below end.
template <class T>
class StagedTokens {
 public:
  __device__ __forceinline__ StagedTokens(const RmsNormWeightGradArgs& a, TokenStage<T>* stages, int64_t first,
                                          int64_t end)
      : a_(a), stages_(stages), first_(first), end_(end) {}

  // The sum of a lane's column. All lanes call it, those outside of the matrix too.
  __device__ __forceinline__ float sum(bool inside) const {
    const int64_t count = end_ > first_ ? (end_ - first_ + weight_warps - 1) / weight_warps : 0;
    const int64_t steps = (count + Stage::tokens - 1) / Stage::tokens;
    __syncwarp();  // all lanes have read the sequence before
    for (int step = 0; step < ahead; ++step) fill(step, steps);
    float rstd = read_rstd(0), next_rstd = read_rstd(1), sum = 0.0f;
    for (int64_t step = 0; step < steps; ++step) {
      const float later_rstd = read_rstd(step + 2);
      cp_async_wait<ahead - 1>();
      __syncwarp();  // the stage is there for all lanes, and all have read the one before
      fill(step + ahead, steps);
      const Stage& stage = stages_[step % Stage::stages];
      const int64_t left = count - step * Stage::tokens;
      LATHE_UNROLL
      for (int j = 0; j < Stage::tokens; ++j) {
        const float r = __shfl_sync(full_warp, rstd, j);
        if (inside && j < left) sum = fmaf(to_float(stage.grad[j][lane()]), to_float(stage.x[j][lane()]) * r, sum);
      }
      rstd = next_rstd, next_rstd = later_rstd;
    }
    return sum;
  }

 private:
  using Stage = TokenStage<T>;
  static constexpr int ahead = Stage::stages - 1;

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % 32); }
  __device__ __forceinline__ int64_t token(int64_t step, int j) const {
    return first_ + (step * Stage::tokens + j) * weight_warps;
  }

  // Lane j has token j's of the step.
  __device__ __forceinline__ float read_rstd(int64_t step) const {
    const int64_t at = token(step, lane());
    return lane() < Stage::tokens && at < end_ ? a_.rstd[at] : 0.0f;
  }

  // A group of copies, an empty one past the last step.
  __device__ __forceinline__ void fill(int64_t step, int64_t steps) const {
    constexpr int in_piece = 16 / sizeof(T), pieces = weight_columns / in_piece;  // of 16 bytes, of a token
    if (step < steps) {
      Stage& stage = stages_[step % Stage::stages];
      LATHE_UNROLL
      for (int i = 0; i < Stage::tokens * pieces / 32; ++i) {
        const int j = i * (32 / pieces) + lane() / pieces, column = lane() % pieces * in_piece;
        const int64_t at = token(step, j), first_column = int64_t{blockIdx.x} * weight_columns + column;
        const int64_t left = a_.column_end - first_column;
        if (at >= end_ || left <= 0) continue;
        const int bytes = left < in_piece ? static_cast<int>(left * sizeof(T)) : 16;
        cp_async_16(&stage.x[j][column], row_of<T>(a_.x, at) + first_column, bytes);
        cp_async_16(&stage.grad[j][column], row_of<T>(a_.grad_out, at) + first_column, bytes);
      }
    }
    cp_async_commit();
  }

  const RmsNormWeightGradArgs& a_;
  TokenStage<T>* stages_;
  int64_t first_, end_;
};

// The same sum where rows are not aligned. Only lanes inside call it.
template <class T>
__device__ __forceinline__ float sum_of_tokens(const RmsNormWeightGradArgs& a, int64_t first, int64_t end,
                                               int64_t column) {
  constexpr int under_way = 16;
  constexpr int64_t step = int64_t{under_way} * weight_warps;
  float sum = 0.0f;
  int64_t t = first;
  for (; t + step - weight_warps < end; t += step) {
    T x[under_way], grad[under_way];
    float rstd[under_way];
    LATHE_UNROLL
    for (int j = 0; j < under_way; ++j) {
      const int64_t token = t + j * weight_warps;
      x[j] = row_of<T>(a.x, token)[column];
      grad[j] = row_of<T>(a.grad_out, token)[column];
      rstd[j] = a.rstd[token];
    }
    LATHE_UNROLL
    for (int j = 0; j < under_way; ++j) sum = fmaf(to_float(grad[j]), to_float(x[j]) * rstd[j], sum);
  }
  for (; t < end; t += weight_warps)
    sum = fmaf(to_float(row_of<T>(a.grad_out, t)[column]), to_float(row_of<T>(a.x, t)[column]) * a.rstd[t], sum);
  return sum;
}

template <class T, bool aligned, class Resources = WeightResources<T, aligned>>
__global__ void __launch_bounds__(Resources::threads, Resources::blocks)
    rms_norm_weight_gradient_kernel(Resources, RmsNormWeightGradArgs a, SequenceBounds bounds) {
  struct Partial {
    float sums[weight_warps][weight_columns];
  };
  Partial& partial = block_shared<Partial>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * weight_columns + lane;
  const bool inside = column < a.column_end;
  float total = inside && warp == 0 ? a.grad_weight[column] : 0.0f;
  for (int s = 0; s < bounds.count; ++s) {
    const int64_t first = bounds.at[s] + warp, end = bounds.at[s + 1];
    float sum = 0.0f;
    if constexpr (aligned) {
      TokenStage<T>* const stages = dynamic_shared<TokenStage<T>>() + warp * TokenStage<T>::stages;
      sum = StagedTokens<T>(a, stages, first, end).sum(inside);
    } else if (inside) {
      sum = sum_of_tokens<T>(a, first, end, column);
    }
    partial.sums[warp][lane] = sum;
    __syncthreads();  // the eight sums are there
    if (warp == 0) {
      float sequence = partial.sums[0][lane];
      for (int w = 1; w < weight_warps; ++w) sequence += partial.sums[w][lane];
      total += sequence;
    }
    __syncthreads();  // and have been read
  }
  if (inside && warp == 0) a.grad_weight[column] = total;
}

template <class T>
void weight_gradient(const RmsNormWeightGradArgs& args) {
  const dim3 grid(static_cast<unsigned>((args.column_end + weight_columns - 1) / weight_columns));
  const bool aligned = rows_aligned<T>(args.x) && rows_aligned<T>(args.grad_out);
  for_each_launch(args.cu_seqlens, args.sequences, [&](const SequenceBounds& bounds) {
    aligned ? launch("rms_norm_weight_gradient", grid, rms_norm_weight_gradient_kernel<T, true>, args, bounds)
            : launch("rms_norm_weight_gradient", grid, rms_norm_weight_gradient_kernel<T, false>, args, bounds);
  });
}

template <class T, bool aligned>
void launch_backward(const RmsNormBackwardArgs& args) {
  launch_rows("rms_norm_backward", rms_norm_backward_kernel<T, aligned, 1>,
              rms_norm_backward_kernel<T, aligned, warps_of_long_row>, args);
}

template <class T>
void backward(const RmsNormBackwardArgs& args) {
  const bool aligned = rows_aligned<T>(args.x) && rows_aligned<T>(args.grad_x) && rows_aligned<T>(args.grad_out) &&
                       rows_aligned<T>(args.grad_sum) && rows_aligned(static_cast<const T*>(args.weight), 0);
  aligned ? launch_backward<T, true>(args) : launch_backward<T, false>(args);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void rms_norm_forward_rows(const RmsNormForwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { forward<T>(args); });
}
template void rms_norm_forward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RmsNormForwardArgs&);

template <DeviceKind>
void rms_norm_backward_rows(const RmsNormBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { backward<T>(args); });
}
template void rms_norm_backward_rows<DeviceKind::LATHE_CUDA_NAMESPACE>(const RmsNormBackwardArgs&);

template <DeviceKind>
void rms_norm_weight_grad_columns(const RmsNormWeightGradArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { weight_gradient<T>(args); });
}
template void rms_norm_weight_grad_columns<DeviceKind::LATHE_CUDA_NAMESPACE>(const RmsNormWeightGradArgs&);

}  // namespace lathe::kernels
