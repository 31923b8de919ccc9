#include "kernels/cuda/token_chunk_rows.cuh"
#include "kernels/gated_delta/state.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

using namespace gated_delta;

// The sums of bodies.h for a value head's γ in a chunk. Of the table of pairs a row is for r, the last one for E, a
// column for s, the first one for S₀; a thread multiplies the pairs of four rows and eight columns.
constexpr int chunk_tokens = static_cast<int>(token_chunk);
constexpr int slice = 32;  // of Dk and Dv, at a time
constexpr int pair_rows = 4, pair_columns = 8, threads_across = chunk_tokens / pair_columns;
static_assert(threads / threads_across * pair_rows == chunk_tokens);

using Slice = float[chunk_tokens][slice + 1];
using Pairs = float[pair_rows][pair_columns];
struct DecayMemory {
  float table[chunk_tokens + 1][chunk_tokens + 1];
  Slice left[2], right;
  float q_factor[chunk_tokens], k_factor[chunk_tokens];
  Gates gates[chunk_tokens];
  float sums[2][2];  // of two warps
};

__device__ __forceinline__ int first_pair_row() { return static_cast<int>(threadIdx.x) / threads_across * pair_rows; }
__device__ __forceinline__ int first_pair_column() {
  return static_cast<int>(threadIdx.x) % threads_across * pair_columns;
}

// sums += the thread's rows of left × its columns of right.
__device__ __forceinline__ void multiply_slices(Pairs& sums, const Slice& left, const Slice& right) {
  for (int i = 0; i < slice; ++i) {
    float column[pair_columns];
    LATHE_UNROLL
    for (int c = 0; c < pair_columns; ++c) column[c] = right[first_pair_column() + c][i];
    LATHE_UNROLL
    for (int r = 0; r < pair_rows; ++r) {
      const float row = left[first_pair_row() + r][i];
      LATHE_UNROLL
      for (int c = 0; c < pair_columns; ++c) sums[r][c] = fmaf(row, column[c], sums[r][c]);
    }
  }
}

// sums[i] += left[i] × right along `dim`, which fill(token, i, &left, &left, &right) gives of a token.
template <class Fill>
__device__ __forceinline__ void multiply_along(DecayMemory& memory, Pairs (&sums)[2], int64_t dim, int count,
                                               const Fill& fill) {
  for (int first = 0; first < dim; first += slice) {
    __syncthreads();  // all have left the slices before
    for (int token = warp(); token < chunk_tokens; token += warps) {
      float values[3] = {};
      if (token < count && first + lane() < dim) fill(token, first + lane(), values);
      memory.left[0][token][lane()] = values[0];
      memory.left[1][token][lane()] = values[1];
      memory.right[token][lane()] = values[2];
    }
    __syncthreads();  // the slices are there
    if (first_pair_column() >= first_pair_row() + pair_rows || first_pair_row() >= count) continue;  // no s < r here
    LATHE_UNROLL
    for (int side = 0; side < 2; ++side) multiply_slices(sums[side], memory.left[side], memory.right);
  }
}

// What the products with a token's heads are multiplied by, and its gates: a warp for each.
template <class T>
__device__ __forceinline__ void load_factors(const GatedDeltaBackwardArgs& a, int64_t head, int64_t row,
                                             DecayMemory& memory, int token) {
  const T *const qkv = row_of<T>(a.qkv, row), *const q = qkv + a.q_column(head), *const k = qkv + a.k_column(head);
  float of_q = 0.0f, of_k = 0.0f;
  for (int i = lane(); i < a.key_dim; i += 32) {
    of_q = fmaf(to_float(q[i]), to_float(q[i]), of_q);
    of_k = fmaf(to_float(k[i]), to_float(k[i]), of_k);
  }
  of_q = warp_sum(of_q);
  of_k = warp_sum(of_k);
  const Gates gates = gates_of<T>(a, head, row_of<T>(a.a, row)[head], row_of<T>(a.b, row)[head]);
  if (lane() > 0) return;
  memory.q_factor[token] = inverse_length(of_q) * q_scale(a);
  memory.k_factor[token] = inverse_length(of_k);
  memory.gates[token] = gates;
}

template <class T>
__device__ __forceinline__ void multiply_pairs(const GatedDeltaBackwardArgs& a, int64_t head, const ChunkRows& rows,
                                               DecayMemory& memory, int count) {
  Pairs keys[2] = {}, values[2] = {};
  multiply_along(memory, keys, a.key_dim, count, [&](int token, int i, float(&of)[3]) {
    const T* const qkv = row_of<T>(a.qkv, rows.begin + token);
    of[0] = to_float(qkv[a.q_column(head) + i]) * memory.q_factor[token];
    of[1] = of[2] = to_float(qkv[a.k_column(head) + i]) * memory.k_factor[token];
  });
  multiply_along(memory, values, a.value_dim, count, [&](int token, int i, float(&of)[3]) {
    const int64_t row = rows.begin + token, place = values_of(a, row, head) + i;
    const float beta = memory.gates[token].beta;
    of[0] = to_float(row_of<T>(a.grad_out, row)[head * a.value_dim + i]);
    of[1] = -beta * a.work.grad_delta[place];
    of[2] = beta * a.work.missing[place];
  });
  LATHE_UNROLL
  for (int r = 0; r < pair_rows; ++r) {
    LATHE_UNROLL
    for (int c = 0; c < pair_columns; ++c)
      memory.table[first_pair_row() + r][1 + first_pair_column() + c] =
          fmaf(keys[0][r][c], values[0][r][c], keys[1][r][c] * values[1][r][c]);
  }
}

// The first column and the last row: a warp's sums.
__device__ __forceinline__ void take_bounds(const GatedDeltaBackwardArgs& a, int64_t head, int64_t chunk,
                                            const ChunkRows& rows, DecayMemory& memory, int count) {
  const auto sum = [&](const float* from, int64_t terms) {
    float partial = 0.0f;
    for (int i = lane(); i < terms; i += 32) partial += from[i];
    return warp_sum(partial);
  };
  const int64_t shares = a.key_dim / 8;
  for (int token = warp(); token < count; token += warps) {
    const int64_t place = ((rows.begin + token) * a.value_heads + head) * shares;
    const float of_state = rows.is_first ? 0.0f : sum(a.work.of_state + place, shares);
    const float of_grad_state = rows.is_last ? 0.0f : sum(a.work.of_grad_state + place, shares);
    if (lane() > 0) continue;
    memory.table[token][0] = of_state;
    memory.table[count][1 + token] = of_grad_state;
  }
  if (warp() > 0) return;
  const float both =
      rows.is_first || rows.is_last ? 0.0f : sum(a.work.bounds_product + keys_of(a, chunk, head), a.key_dim);
  if (lane() == 0) memory.table[count][0] = both;
}

template <class T>
__global__ void __launch_bounds__(threads, 2) gated_delta_decay_kernel(GatedDeltaBackwardArgs a, int64_t first_sequence,
                                                                       int64_t first_chunk, SequenceBounds bounds) {
  DecayMemory& memory = block_shared<DecayMemory>();
  const int64_t chunk = first_chunk + blockIdx.y, head = blockIdx.x;
  const ChunkRows rows = rows_of_chunk(bounds, first_sequence, chunk);
  if (rows.begin == rows.end) return;
  const int count = static_cast<int>(rows.end - rows.begin), thread = static_cast<int>(threadIdx.x);
  for (int token = warp(); token < count; token += warps) load_factors<T>(a, head, rows.begin + token, memory, token);
  multiply_pairs<T>(a, head, rows, memory, count);
  __syncthreads();  // the table is there, its last row may be written
  take_bounds(a, head, chunk, rows, memory, count);
  __syncthreads();  // and with its bounds
  // A column's numbers are summed over r from the end on, each decayed to the row, which then is decayed from its s.
  if (thread <= count) {
    float after = memory.table[count][thread], decay = 1.0f;
    for (int t = count - 1; t >= thread; --t) {
      after = fmaf(t + 1 < count ? memory.gates[t + 1].gamma : 1.0f, after, memory.table[t][thread]);
      memory.table[t][thread] = after;
    }
    for (int t = thread; t < count; ++t) {
      decay *= memory.gates[t].gamma;
      memory.table[t][thread] *= decay;
    }
  }
  __syncthreads();  // the rows can be summed
  float of_A_log = 0.0f, of_dt_bias = 0.0f;
  if (thread < count) {
    float along = 0.0f;
    for (int s = 0; s <= thread; ++s) along += memory.table[thread][s];
    const float rate = expf(number_of<T>(a.A_log, a.wide_A_log, head));
    const float step =
        to_float(row_of<T>(a.a, rows.begin + thread)[head]) + number_of<T>(a.dt_bias, a.wide_dt_bias, head);
    of_dt_bias = -(along * (rate * sigmoid(step)));
    of_A_log = -(along * (rate * softplus(step)));
    row_of<T>(a.grad_a, rows.begin + thread)[head] = from_float<T>(of_dt_bias);
  }
  of_A_log = warp_sum(of_A_log);
  of_dt_bias = warp_sum(of_dt_bias);
  static_assert(chunk_tokens == 2 * 32);
  if (lane() == 0 && warp() < 2) memory.sums[warp()][0] = of_A_log, memory.sums[warp()][1] = of_dt_bias;
  __syncthreads();  // both warps' sums are there
  if (thread < 2)
    a.work.chunk_sums[(chunk * a.value_heads + head) * 2 + thread] = memory.sums[0][thread] + memory.sums[1][thread];
}

// The gradients of A_log (which 0) and dt_bias: a thread for each value head.
__global__ void __launch_bounds__(threads)
    gated_delta_weight_gradient_kernel(GatedDeltaBackwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  const int64_t head = int64_t{blockIdx.x} * threads + threadIdx.x;
  const int which = static_cast<int>(blockIdx.y);
  float* const gradient = which == 0 ? a.grad_A_log : a.grad_dt_bias;
  if (head >= a.value_heads || gradient == nullptr) return;
  float total = gradient[head];
  for (int s = 0; s < bounds.count; ++s) {
    const int64_t rows = bounds.at[s + 1] - bounds.at[s], chunks = (rows + token_chunk - 1) / token_chunk;
    const int64_t first = first_token_chunk(first_sequence + s, bounds.at[s]);
    float sum = 0.0f;
    for (int64_t chunk = first; chunk < first + chunks; ++chunk)
      sum += a.work.chunk_sums[(chunk * a.value_heads + head) * 2 + which];
    total += sum;
  }
  gradient[head] = total;
}

template <class T>
void launch_all(const GatedDeltaBackwardArgs& a) {
  for_each_chunk_launch(a.cu_seqlens, a.sequences,
                        [&](int64_t sequence, int64_t first, int64_t count, const SequenceBounds& bounds) {
                          launch(config_of("gated_delta_decay", a.value_heads, count), gated_delta_decay_kernel<T>, a,
                                 sequence, first, bounds);
                        });
  if (a.grad_A_log == nullptr && a.grad_dt_bias == nullptr) return;
  for_each_counted_launch(a.cu_seqlens, a.sequences, [&](int64_t first, const SequenceBounds& bounds) {
    launch(config_of("gated_delta_weight_gradient", blocks_for(a.value_heads, threads), 2),
           gated_delta_weight_gradient_kernel, a, first, bounds);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void gated_delta_decay_all(const GatedDeltaBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) { launch_all<T>(args); });
}
template void gated_delta_decay_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedDeltaBackwardArgs&);

}  // namespace lathe::kernels
