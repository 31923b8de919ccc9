// S, or its gradient, lies in registers while its tokens go by, two columns of it in eight neighbouring lanes: a sum
// along the rows is sixteen products of a lane (of 128 rows) and three shuffles, and no block waits for another. A token
// waits for the sum of the one before it; of what does not depend on S, each warp brings one of the next four tokens
// meanwhile. Sums along the columns are made by chunks of tokens (bodies.h), with rows and columns exchanged.
#include "kernels/cuda/bounds.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row.h"
#include "kernels/gated_delta/bodies.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

constexpr int warps = 4, threads = warps * 32;
constexpr int sharers = 8;       // lanes that share a column
constexpr int lane_columns = 2;  // of each lane
constexpr int warp_columns = 32 / sharers * lane_columns, block_columns = warps * warp_columns;
static_assert(block_columns == 32, "a warp loads those of a token at once");
constexpr int stage_tokens = warps;
// That a multiprocessor is to have at least: left to itself, nvcc spills where it might have fewer.
constexpr int blocks_for_room(int dim) { return dim > 128 ? 2 : 4; }
static_assert(gated_delta_chunk % stage_tokens == 0 && stage_tokens <= sharers);

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % 32); }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x / 32); }
__device__ __forceinline__ int sharer() { return lane() % sharers; }
// A lane's first column, counted from the block's.
__device__ __forceinline__ int column_in_block() { return warp() * warp_columns + lane() / sharers * lane_columns; }

union Four {
  float4 vector;
  float at[4];
};
__device__ __forceinline__ Four load_four(const float* from) {
  Four four;
  four.vector = load_vector<float4>(from);
  return four;
}

// A number for each of a lane's columns.
struct Pair {
  float at[lane_columns];
};
__device__ __forceinline__ Pair load_pair(const float* from) {
  const float2 two = load_vector<float2>(from);
  return {{two.x, two.y}};
}
__device__ __forceinline__ void store_pair(float* to, const Pair& pair) {
  store_vector<float2>(to, make_float2(pair.at[0], pair.at[1]));
}
__device__ __forceinline__ Pair operator*(float x, const Pair& pair) { return {{x * pair.at[0], x * pair.at[1]}}; }

// Four chains for each column, added in order, and then the sharers' sums.
struct Chains {
  float at[lane_columns][4] = {};
  __device__ __forceinline__ Pair sum() const {
    Pair result;
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c)
      result.at[c] = warp_sum<sharers>((at[c][0] + at[c][1]) + (at[c][2] + at[c][3]));
    return result;
  }
};

// A lane's elements of two columns of at most `dim` rows, of which others are 0: rows 4 (8 m + sharer) + e. What a
// column and a row are depends on the pass.
template <int dim>
struct Part {
  static constexpr int fours = dim / (4 * sharers);
  float at[fours][lane_columns][4];

  static __device__ __forceinline__ int row(int m) { return 4 * (m * sharers + sharer()); }
  // body(m, c, e)
  template <class Body>
  static __device__ __forceinline__ void each(const Body& body) {
    LATHE_UNROLL
    for (int m = 0; m < fours; ++m) {
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) {
        LATHE_UNROLL
        for (int e = 0; e < 4; ++e) body(m, c, e);
      }
    }
  }
  __device__ __forceinline__ void clear() {
    each([&](int m, int c, int e) { at[m][c][e] = 0.0f; });
  }
  // visit(m, e, pair) of the lane's rows that there are.
  template <class Visit>
  static __device__ __forceinline__ void each_row(int rows, const Visit& visit) {
    LATHE_UNROLL
    for (int m = 0; m < fours; ++m) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e)
        if (row(m) + e < rows) visit(m, e, row(m) + e);
    }
  }
  // Rows of `columns`, from the lane's own first column on.
  __device__ __forceinline__ void load(const float* from, int rows, int columns) {
    clear();
    each_row(rows, [&](int m, int e, int i) {
      const Pair pair = load_pair(from + int64_t{i} * columns);
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) at[m][c][e] = pair.at[c];
    });
  }
  __device__ __forceinline__ void store(float* to, int rows, int columns) const {
    each_row(rows, [&](int m, int e, int i) { store_pair(to + int64_t{i} * columns, {{at[m][0][e], at[m][1][e]}}); });
  }
};

// x[row] for the rows of Part::at[m].
template <int dim>
__device__ __forceinline__ Four rows_of(const float* x, int m) {
  return load_four(x + Part<dim>::row(m));
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
__device__ __forceinline__ float q_scale(const GatedDeltaInputs& in) {
  return 1.0f / sqrtf(static_cast<float>(in.key_dim));
}
__device__ __forceinline__ float inverse_length(float squares) { return 1.0f / sqrtf(squares + 1e-6f); }
template <class T>
__device__ __forceinline__ float number_of(const void* from, bool wide, int64_t i) {
  return wide ? static_cast<const float*>(from)[i] : to_float(static_cast<const T*>(from)[i]);
}

struct Gates {
  float beta, gamma;
};
template <class T>
__device__ __forceinline__ Gates gates_of(const GatedDeltaInputs& in, int64_t head, T a, T b) {
  const float rate = expf(number_of<T>(in.A_log, in.wide_A_log, head));
  const float step = to_float(a) + number_of<T>(in.dt_bias, in.wide_dt_bias, head);
  return {sigmoid(to_float(b)), expf(-(rate * softplus(step)))};
}

// What a block has of four tokens: q̂ and k̂ along Dk, and of v, or out's gradient, the block's own columns.
template <int dim>
struct Stage {
  float q[stage_tokens][dim], k[stage_tokens][dim], columns[stage_tokens][block_columns];
  Gates gates[stage_tokens];
};

// A warp's token on its way there.
template <class T, int dim>
class Token {
 public:
  // `columns`: the row of v or of out's gradient, from the block's first column on, of which `count` are there.
  __device__ __forceinline__ void fetch(const GatedDeltaInputs& in, int64_t head, int64_t row, const T* columns,
                                        int count) {
    const T* const qkv = row_of<T>(in.qkv, row);
    LATHE_UNROLL
    for (int j = 0; j < each; ++j) {
      const int i = j * 32 + lane();
      if (i >= in.key_dim) continue;
      q_[j] = qkv[in.q_column(head) + i];
      k_[j] = qkv[in.k_column(head) + i];
    }
    if (lane() < count) column_ = columns[lane()];
    a_ = row_of<T>(in.a, row)[head];
    b_ = row_of<T>(in.b, row)[head];
  }
  __device__ __forceinline__ void put(const GatedDeltaInputs& in, int64_t head, Stage<dim>& stage, int count) const {
    put_normed(in, q_, q_scale(in), stage.q[warp()]);
    put_normed(in, k_, 1.0f, stage.k[warp()]);
    stage.columns[warp()][lane()] = lane() < count ? to_float(column_) : 0.0f;
    const Gates gates = gates_of(in, head, a_, b_);
    if (lane() == 0) stage.gates[warp()] = gates;
  }

 private:
  static constexpr int each = dim / 32;

  static __device__ __forceinline__ void put_normed(const GatedDeltaInputs& in, const T (&x)[each], float scale,
                                                    float* to) {
    float squares = 0.0f;
    LATHE_UNROLL
    for (int j = 0; j < each; ++j)
      if (j * 32 + lane() < in.key_dim) squares = fmaf(to_float(x[j]), to_float(x[j]), squares);
    const float factor = inverse_length(warp_sum(squares)) * scale;
    LATHE_UNROLL
    for (int j = 0; j < each; ++j) {
      const int i = j * 32 + lane();
      to[i] = i < in.key_dim ? to_float(x[j]) * factor : 0.0f;
    }
  }

  T q_[each], k_[each], column_, a_, b_;
};

// A block's columns of one value head of one sequence.
struct Place {
  int64_t sequence, begin, end;  // and its rows
  int64_t head;
  int first_column, columns;  // the block's, of those there are
  __device__ __forceinline__ int column() const { return first_column + column_in_block(); }
  __device__ __forceinline__ bool has_columns() const { return column_in_block() < columns; }
};
__device__ __forceinline__ Place place_of_block(const GatedDeltaInputs& in, int64_t sequence, int64_t begin,
                                                int64_t end) {
  const int first = static_cast<int>(blockIdx.x) * block_columns, left = static_cast<int>(in.value_dim) - first;
  return {sequence, begin, end, blockIdx.y, first, left < block_columns ? left : block_columns};
}
__device__ __forceinline__ int64_t chunk_of(const Place& place, int64_t row) {
  return gated_delta_first_chunk(place.sequence, place.begin) + (row - place.begin) / gated_delta_chunk;
}
__device__ __forceinline__ bool at_chunk_bound(const Place& place, int64_t row) {
  return (row - place.begin) % gated_delta_chunk == 0 && row > place.begin && row < place.end;
}
__device__ __forceinline__ int64_t matrix_of(const GatedDeltaInputs& in, int64_t index, int64_t head) {
  return (index * in.value_heads + head) * in.key_dim * in.value_dim;
}
__device__ __forceinline__ int64_t values_of(const GatedDeltaInputs& in, int64_t row, int64_t head) {
  return (row * in.value_heads + head) * in.value_dim;
}
__device__ __forceinline__ int64_t keys_of(const GatedDeltaInputs& in, int64_t row, int64_t head) {
  return (row * in.value_heads + head) * in.key_dim;
}

// k̂ᵀ S.
template <int dim>
__device__ __forceinline__ Pair product_with_rows(const Part<dim>& state, const float* x) {
  Chains chains;
  LATHE_UNROLL
  for (int m = 0; m < Part<dim>::fours; ++m) {
    const Four row = rows_of<dim>(x, m);
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) chains.at[c][e] = fmaf(row.at[e], state.at[m][c][e], chains.at[c][e]);
    }
  }
  return chains.sum();
}

// S_t = γ S_{t−1} + k̂ δᵀ, and its product with q̂.
template <int dim>
__device__ __forceinline__ Pair advance(Part<dim>& state, const Stage<dim>& stage, int t, const Pair& delta) {
  const float gamma = stage.gates[t].gamma;
  Chains out;
  LATHE_UNROLL
  for (int m = 0; m < Part<dim>::fours; ++m) {
    const Four k = rows_of<dim>(stage.k[t], m), q = rows_of<dim>(stage.q[t], m);
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& element = state.at[m][c][e];
        element = fmaf(k.at[e], delta.at[c], gamma * element);
        out.at[c][e] = fmaf(q.at[e], element, out.at[c][e]);
      }
    }
  }
  return out.sum();
}

template <class T, int dim>
__device__ __forceinline__ void forward(const GatedDeltaForwardArgs& a, const Place& place, float* own, bool begins) {
  struct Stages {
    Stage<dim> at[2];
  };
  Stages& stages = block_shared<Stages>();
  const int rows = static_cast<int>(a.key_dim), columns = static_cast<int>(a.value_dim);
  Part<dim> state;
  if (begins || !place.has_columns()) {
    state.clear();
  } else {
    state.load(own + place.column(), rows, columns);
  }
  Token<T, dim> token;
  const auto fetch = [&](int64_t row) {
    if (row < place.end)
      token.fetch(a, place.head, row, row_of<T>(a.qkv, row) + a.v_column(place.head) + place.first_column,
                  place.columns);
  };
  fetch(place.begin + warp());
  for (int64_t first = place.begin; first < place.end; first += stage_tokens) {
    Stage<dim>& stage = stages.at[(first - place.begin) / stage_tokens % 2];
    if (first + warp() < place.end) token.put(a, place.head, stage, place.columns);
    __syncthreads();  // the stage is there, and all have left the one before, which is filled next
    fetch(first + stage_tokens + warp());
    if (!place.has_columns()) continue;
    if (a.chunk_states != nullptr && at_chunk_bound(place, first))
      state.store(a.chunk_states + matrix_of(a, chunk_of(place, first), place.head) + place.column(), rows, columns);
    const int here = place.end - first < stage_tokens ? static_cast<int>(place.end - first) : stage_tokens;
    Pair kept_out{}, kept_missing{};  // of the token that the sharer stores
    for (int t = 0; t < here; ++t) {
      const Pair v = load_pair(&stage.columns[t][column_in_block()]), found = product_with_rows(state, stage.k[t]);
      Pair missing;
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) missing.at[c] = fmaf(-stage.gates[t].gamma, found.at[c], v.at[c]);
      const Pair out = advance(state, stage, t, stage.gates[t].beta * missing);
      if (sharer() == t) kept_out = out, kept_missing = missing;
    }
    if (sharer() >= here) continue;
    const int64_t row = first + sharer();
    if (a.missing != nullptr) store_pair(a.missing + values_of(a, row, place.head) + place.column(), kept_missing);
    if (a.out.data == nullptr) continue;
    T* const out = row_of<T>(a.out, row) + place.head * a.value_dim + place.column();
    LATHE_UNROLL
    for (int c = 0; c < lane_columns; ++c) out[c] = from_float<T>(kept_out.at[c]);
  }
  if (own != nullptr && place.has_columns()) state.store(own + place.column(), rows, columns);
}

template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    gated_delta_forward_kernel(GatedDeltaForwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  const int s = static_cast<int>(blockIdx.z);
  forward<T, dim>(a, place_of_block(a, first_sequence + s, bounds.at[s], bounds.at[s + 1]), nullptr, true);
}

template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim)) gated_delta_step_kernel(GatedDeltaForwardArgs a) {
  const int64_t s = blockIdx.z, begin = a.bounds[s], end = a.bounds[s + 1];
  if (begin == end) return;
  forward<T, dim>(a, place_of_block(a, s, begin, end), a.states + matrix_of(a, a.slots[s], blockIdx.y),
                  a.contexts[s] == end - begin);
}

// From the last token to the first: S's gradient.
template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    gated_delta_grad_state_kernel(GatedDeltaBackwardArgs a, int64_t first_sequence, SequenceBounds bounds) {
  struct Stages {
    Stage<dim> at[2];
  };
  Stages& stages = block_shared<Stages>();
  const int s = static_cast<int>(blockIdx.z);
  const Place place = place_of_block(a, first_sequence + s, bounds.at[s], bounds.at[s + 1]);
  const int rows = static_cast<int>(a.key_dim), columns = static_cast<int>(a.value_dim);
  Part<dim> grad;
  grad.clear();
  Token<T, dim> token;
  const auto fetch = [&](int64_t row) {
    if (row >= place.begin && row < place.end)
      token.fetch(a, place.head, row, row_of<T>(a.grad_out, row) + place.head * a.value_dim + place.first_column,
                  place.columns);
  };
  const int64_t last = place.begin + (place.end - place.begin - 1) / stage_tokens * stage_tokens;
  fetch(last + warp());
  for (int64_t first = last; first >= place.begin && first < place.end; first -= stage_tokens) {
    Stage<dim>& stage = stages.at[(first - place.begin) / stage_tokens % 2];
    if (first + warp() < place.end) token.put(a, place.head, stage, place.columns);
    __syncthreads();  // the stage is there, and all have left the one before, which is filled next
    fetch(first - stage_tokens + warp());
    if (!place.has_columns()) continue;
    const int here = place.end - first < stage_tokens ? static_cast<int>(place.end - first) : stage_tokens;
    if (at_chunk_bound(place, first + here))
      grad.store(a.work.chunk_grad_states + matrix_of(a, chunk_of(place, first), place.head) + place.column(), rows,
                 columns);
    Pair kept{};  // of the token that the sharer stores
    for (int t = here - 1; t >= 0; --t) {
      const Pair grad_out = load_pair(&stage.columns[t][column_in_block()]);
      Chains chains;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four k = rows_of<dim>(stage.k[t], m), q = rows_of<dim>(stage.q[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = grad.at[m][c][e];
            element = fmaf(q.at[e], grad_out.at[c], element);
            chains.at[c][e] = fmaf(k.at[e], element, chains.at[c][e]);
          }
        }
      }
      const Pair grad_delta = chains.sum(), grad_found = -stage.gates[t].beta * grad_delta;
      if (sharer() == t) kept = grad_delta;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four k = rows_of<dim>(stage.k[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = grad.at[m][c][e];
            element = stage.gates[t].gamma * fmaf(k.at[e], grad_found.at[c], element);
          }
        }
      }
    }
    if (sharer() < here)
      store_pair(a.work.grad_delta + values_of(a, first + sharer(), place.head) + place.column(), kept);
  }
}

// What the chunks' blocks have of four tokens: the rows of S that a block has of q̂ and k̂, and along Dv what the token
// adds to S and to its gradient.
template <int dim>
struct ChunkStage {
  float q[stage_tokens][block_columns], k[stage_tokens][block_columns];
  float delta[stage_tokens][dim], grad_found[stage_tokens][dim], grad_out[stage_tokens][dim];
  float gamma[stage_tokens];
};

// A warp's token. Many blocks are there at a time, so nothing is fetched before it is wanted.
template <class T, int dim>
__device__ __forceinline__ void load_chunk_token(const GatedDeltaBackwardArgs& a, int64_t head, int64_t row,
                                                 int first_row, ChunkStage<dim>& stage) {
  const T* const qkv = row_of<T>(a.qkv, row);
  const auto load_normed = [&](int64_t column, float scale, float* to) {
    float squares = 0.0f;
    for (int i = lane(); i < a.key_dim; i += 32) {
      const float x = to_float(qkv[column + i]);
      squares = fmaf(x, x, squares);
    }
    const float factor = inverse_length(warp_sum(squares)) * scale;
    const int i = first_row + lane();
    to[lane()] = i < a.key_dim ? to_float(qkv[column + i]) * factor : 0.0f;
  };
  load_normed(a.q_column(head), q_scale(a), stage.q[warp()]);
  load_normed(a.k_column(head), 1.0f, stage.k[warp()]);
  const Gates gates = gates_of<T>(a, head, row_of<T>(a.a, row)[head], row_of<T>(a.b, row)[head]);
  if (lane() == 0) stage.gamma[warp()] = gates.gamma;
  const int64_t values = values_of(a, row, head);
  const T* const grad_out = row_of<T>(a.grad_out, row) + head * a.value_dim;
  for (int i = lane(); i < dim; i += 32) {
    const bool inside = i < a.value_dim;
    stage.delta[warp()][i] = inside ? gates.beta * a.work.missing[values + i] : 0.0f;
    stage.grad_found[warp()][i] = inside ? -gates.beta * a.work.grad_delta[values + i] : 0.0f;
    stage.grad_out[warp()][i] = inside ? to_float(grad_out[i]) : 0.0f;
  }
}

// The sequence that a chunk's number belongs to.
__device__ __forceinline__ int sequence_of_chunk(const SequenceBounds& bounds, int64_t first_sequence, int64_t chunk) {
  int first = 0, last = bounds.count - 1;
  while (first < last) {
    const int middle = (first + last) / 2;
    if (gated_delta_first_chunk(first_sequence + middle + 1, bounds.at[middle + 1]) > chunk) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return first;
}

struct ChunkRows {
  int64_t begin, end;
  bool is_first, is_last;  // of its sequence
};
// Of a number without a chunk: no rows.
__device__ __forceinline__ ChunkRows rows_of_chunk(const SequenceBounds& bounds, int64_t first_sequence,
                                                   int64_t chunk) {
  const int s = sequence_of_chunk(bounds, first_sequence, chunk);
  const int64_t of_sequence = chunk - gated_delta_first_chunk(first_sequence + s, bounds.at[s]);
  const int64_t begin = bounds.at[s] + of_sequence * gated_delta_chunk, end = bounds.at[s + 1];
  if (begin >= end) return {};
  const bool is_last = end - begin <= gated_delta_chunk;
  return {begin, is_last ? end : begin + gated_delta_chunk, of_sequence == 0, is_last};
}

// A block has 32 rows of S, a lane two of them: its columns, in the words of Part, whose rows are S's columns.
template <class T, int dim>
__global__ void __launch_bounds__(threads, blocks_for_room(dim))
    gated_delta_chunk_kernel(GatedDeltaBackwardArgs a, int64_t first_sequence, int64_t first_chunk,
                             SequenceBounds bounds) {
  ChunkStage<dim>& stage = block_shared<ChunkStage<dim>>();
  const int64_t chunk = first_chunk + blockIdx.z, head = blockIdx.y;
  const ChunkRows rows = rows_of_chunk(bounds, first_sequence, chunk);
  if (rows.begin == rows.end) return;
  const int first_row = static_cast<int>(blockIdx.x) * block_columns, own = first_row + column_in_block();
  const bool has_rows = own < a.key_dim;
  const int64_t matrix = matrix_of(a, chunk, head) + int64_t{own} * a.value_dim;
  // visit(m, c, four) for a lane's elements of a matrix.
  const auto each_four = [&](const float* from, const auto& visit) {
    LATHE_UNROLL
    for (int m = 0; m < Part<dim>::fours; ++m) {
      if (Part<dim>::row(m) >= a.value_dim) continue;
      LATHE_UNROLL
      for (int c = 0; c < lane_columns; ++c) visit(m, c, load_four(from + c * a.value_dim + Part<dim>::row(m)));
    }
  };
  const auto load_stage = [&](int64_t first) {
    __syncthreads();  // all have left the stage before
    if (first + warp() < rows.end) load_chunk_token<T, dim>(a, head, first + warp(), first_row, stage);
    __syncthreads();  // the stage is there
    return rows.end - first < stage_tokens ? static_cast<int>(rows.end - first) : stage_tokens;
  };

  Part<dim> state;
  state.clear();
  if (has_rows && !rows.is_first)
    each_four(a.work.chunk_states + matrix, [&](int m, int c, const Four& four) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) state.at[m][c][e] = four.at[e];
    });
  for (int64_t first = rows.begin; first < rows.end; first += stage_tokens) {
    const int here = load_stage(first);
    if (!has_rows) continue;
    Pair kept_q{}, kept_k{};  // of the token that the sharer stores
    for (int t = 0; t < here; ++t) {
      const Pair k = load_pair(&stage.k[t][column_in_block()]);
      const float gamma = stage.gamma[t];
      Chains of_q, of_k;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four delta = rows_of<dim>(stage.delta[t], m), grad_found = rows_of<dim>(stage.grad_found[t], m),
                   grad_out = rows_of<dim>(stage.grad_out[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = state.at[m][c][e];
            const float decayed = gamma * element;
            of_k.at[c][e] = fmaf(grad_found.at[e], decayed, of_k.at[c][e]);
            element = fmaf(delta.at[e], k.at[c], decayed);
            of_q.at[c][e] = fmaf(grad_out.at[e], element, of_q.at[c][e]);
          }
        }
      }
      const Pair grad_q = of_q.sum(), grad_k = of_k.sum();
      if (sharer() == t) kept_q = grad_q, kept_k = grad_k;
    }
    if (sharer() >= here) continue;
    const int64_t keys = keys_of(a, first + sharer(), head) + own;
    store_pair(a.work.grad_q + keys, kept_q);
    store_pair(a.work.grad_k + keys, kept_k);
  }

  if (rows.is_last || !has_rows) {
    state.clear();
  } else {
    Chains products;
    each_four(a.work.chunk_grad_states + matrix, [&](int m, int c, const Four& four) {
      LATHE_UNROLL
      for (int e = 0; e < 4; ++e) {
        products.at[c][e] = fmaf(state.at[m][c][e], four.at[e], products.at[c][e]);
        state.at[m][c][e] = four.at[e];
      }
    });
    const Pair sums = products.sum();
    if (sharer() == 0) store_pair(a.work.products + keys_of(a, chunk, head) + own, sums);
  }
  const int64_t last = rows.begin + (rows.end - rows.begin - 1) / stage_tokens * stage_tokens;
  for (int64_t first = last; first >= rows.begin; first -= stage_tokens) {
    const int here = load_stage(first);
    if (!has_rows) continue;
    Pair kept{};
    for (int t = here - 1; t >= 0; --t) {
      const Pair k = load_pair(&stage.k[t][column_in_block()]), q = load_pair(&stage.q[t][column_in_block()]);
      const float gamma = stage.gamma[t];
      Chains chains;
      LATHE_UNROLL
      for (int m = 0; m < Part<dim>::fours; ++m) {
        const Four delta = rows_of<dim>(stage.delta[t], m), grad_found = rows_of<dim>(stage.grad_found[t], m),
                   grad_out = rows_of<dim>(stage.grad_out[t], m);
        LATHE_UNROLL
        for (int c = 0; c < lane_columns; ++c) {
          LATHE_UNROLL
          for (int e = 0; e < 4; ++e) {
            float& element = state.at[m][c][e];
            element = fmaf(grad_out.at[e], q.at[c], element);
            chains.at[c][e] = fmaf(delta.at[e], element, chains.at[c][e]);
            element = gamma * fmaf(grad_found.at[e], k.at[c], element);
          }
        }
      }
      const Pair grad_k = chains.sum();
      if (sharer() == t) kept = grad_k;
    }
    if (sharer() >= here) continue;
    float* const to = a.work.grad_k + keys_of(a, first + sharer(), head) + own;  // as this lane left it above
    const Pair before = load_pair(to);
    store_pair(to, {{before.at[0] + kept.at[0], before.at[1] + kept.at[1]}});
  }
}

// Through x̂ = x · scale / √(Σ x² + 1e-6), of a warp's elements lane, lane + 32, …
constexpr int most_elements = 256 / 32;
template <class T>
__device__ __forceinline__ void store_grad_of_normed(T* to, const T* x, const float (&gradient)[most_elements], int dim,
                                                     float scale) {
  float elements[most_elements], squares = 0.0f, along = 0.0f;
  LATHE_UNROLL
  for (int j = 0; j < most_elements; ++j) {
    const int i = j * 32 + lane();
    elements[j] = i < dim ? to_float(x[i]) : 0.0f;
    squares = fmaf(elements[j], elements[j], squares);
    along = fmaf(elements[j], gradient[j], along);
  }
  const float r = inverse_length(warp_sum(squares)), less = -(warp_sum(along) * r) * r;
  LATHE_UNROLL
  for (int j = 0; j < most_elements; ++j) {
    const int i = j * 32 + lane();
    if (i < dim) to[i] = from_float<T>(scale * r * fmaf(less, elements[j], gradient[j]));
  }
}

// The gradients of q, k, v and b: a warp for each key head of a row.
template <class T>
__global__ void __launch_bounds__(threads)
    gated_delta_grad_rows_kernel(GatedDeltaBackwardArgs a, int64_t first_row, int64_t end_row) {
  const int64_t item = int64_t{blockIdx.x} * warps + warp();
  const int64_t row = first_row + item / a.key_heads, group = a.value_heads / a.key_heads;
  if (row >= end_row) return;
  const int64_t first = item % a.key_heads * group;
  const int key_dim = static_cast<int>(a.key_dim), value_dim = static_cast<int>(a.value_dim);
  const T* const qkv = row_of<T>(a.qkv, row);
  T* const grad_qkv = row_of<T>(a.grad_qkv, row);
  const T* const q = qkv + a.q_column(first);
  float grad_q[most_elements] = {}, grad_k[most_elements] = {}, squares = 0.0f;
  for (int i = lane(); i < key_dim; i += 32) squares = fmaf(to_float(q[i]), to_float(q[i]), squares);
  const float q_factor = inverse_length(warp_sum(squares)) * q_scale(a);
  for (int64_t head = first; head < first + group; ++head) {
    const float *const of_q = a.work.grad_q + keys_of(a, row, head), *const of_k =
                                                                         a.work.grad_k + keys_of(a, row, head);
    float of_out = 0.0f;
    LATHE_UNROLL
    for (int j = 0; j < most_elements; ++j) {
      const int i = j * 32 + lane();
      if (i >= key_dim) continue;
      grad_q[j] += of_q[i];
      grad_k[j] += of_k[i];
      of_out = fmaf(to_float(q[i]), of_q[i], of_out);
    }
    const int64_t values = values_of(a, row, head);
    const float beta = sigmoid(to_float(row_of<T>(a.b, row)[head]));
    float of_v = 0.0f, grad_beta = 0.0f;
    for (int i = lane(); i < value_dim; i += 32) {
      const float grad_delta = a.work.grad_delta[values + i];
      of_v = fmaf(grad_delta, to_float(qkv[a.v_column(head) + i]), of_v);
      grad_beta = fmaf(grad_delta, a.work.missing[values + i], grad_beta);
      grad_qkv[a.v_column(head) + i] = from_float<T>(beta * grad_delta);
    }
    of_out = warp_sum(of_out) * q_factor;
    of_v = warp_sum(of_v) * beta;
    grad_beta = warp_sum(grad_beta);
    if (lane() > 0) continue;
    a.work.changes[row * a.value_heads + head] = of_out - of_v;
    row_of<T>(a.grad_b, row)[head] = from_float<T>(grad_beta * (beta * (1.0f - beta)));
  }
  store_grad_of_normed(grad_qkv + a.q_column(first), q, grad_q, key_dim, q_scale(a));
  store_grad_of_normed(grad_qkv + a.k_column(first), qkv + a.k_column(first), grad_k, key_dim, 1.0f);
}

// x of this lane and of all after it.
__device__ __forceinline__ float sum_from_here(float x) {
  LATHE_UNROLL
  for (int apart = 1; apart < 32; apart *= 2) {
    const float after = __shfl_down_sync(full_warp, x, apart);
    if (lane() + apart < 32) x += after;
  }
  return x;
}

// Λ (gated_delta.h) and the gradient of a: a warp for each value head of a chunk, a lane for two of its tokens.
template <class T>
__global__ void __launch_bounds__(threads)
    gated_delta_grad_decay_kernel(GatedDeltaBackwardArgs a, int64_t first_sequence, int64_t first_chunk,
                                  int64_t end_chunk, SequenceBounds bounds) {
  static_assert(gated_delta_chunk == 64);
  const int64_t item = int64_t{blockIdx.x} * warps + warp();
  const int64_t chunk = first_chunk + item / a.value_heads, head = item % a.value_heads;
  if (chunk >= end_chunk) return;
  const ChunkRows rows = rows_of_chunk(bounds, first_sequence, chunk);
  if (rows.begin == rows.end) return;
  float after = 0.0f;
  if (!rows.is_last) {
    for (int i = lane(); i < a.key_dim; i += 32) after += a.work.products[keys_of(a, chunk, head) + i];
    after = warp_sum(after);
  }
  float lambda[2];
  LATHE_UNROLL
  for (int half = 1; half >= 0; --half) {
    const int64_t row = rows.begin + half * 32 + lane();
    lambda[half] = sum_from_here(row < rows.end ? a.work.changes[row * a.value_heads + head] : 0.0f) + after;
    after = __shfl_sync(full_warp, lambda[half], 0);
  }
  const float rate = expf(number_of<T>(a.A_log, a.wide_A_log, head));
  const float dt_bias = number_of<T>(a.dt_bias, a.wide_dt_bias, head);
  float of_A_log = 0.0f, of_dt_bias = 0.0f;
  LATHE_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int64_t row = rows.begin + half * 32 + lane();
    if (row >= rows.end) continue;
    const float step = to_float(row_of<T>(a.a, row)[head]) + dt_bias;
    const float of_step = -(lambda[half] * (rate * sigmoid(step)));
    row_of<T>(a.grad_a, row)[head] = from_float<T>(of_step);
    of_dt_bias += of_step;
    of_A_log = fmaf(-lambda[half], rate * softplus(step), of_A_log);
  }
  of_A_log = warp_sum(of_A_log);
  of_dt_bias = warp_sum(of_dt_bias);
  if (lane() == 0) store_pair(a.work.chunk_sums + (chunk * a.value_heads + head) * 2, {{of_A_log, of_dt_bias}});
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
    const int64_t rows = bounds.at[s + 1] - bounds.at[s], chunks = (rows + gated_delta_chunk - 1) / gated_delta_chunk;
    const int64_t first = gated_delta_first_chunk(first_sequence + s, bounds.at[s]);
    float sum = 0.0f;
    for (int64_t chunk = first; chunk < first + chunks; ++chunk)
      sum += a.work.chunk_sums[(chunk * a.value_heads + head) * 2 + which];
    total += sum;
  }
  gradient[head] = total;
}

// Calls body.operator()<dim>() with the room for so many rows in registers.
template <class Body>
void with_room(int64_t dim, const Body& body) {
  if (dim <= 32) return body.template operator()<32>();
  if (dim <= 128) return body.template operator()<128>();
  body.template operator()<256>();
}

LaunchConfig config_of(const char* name, int64_t x, int64_t y = 1, int64_t z = 1) {
  return {.name = name,
          .grid = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)),
          .block = dim3(threads)};
}
int64_t blocks_for(int64_t items, int64_t each) { return (items + each - 1) / each; }

template <class T>
void forward_sequences(const GatedDeltaForwardArgs& a, int64_t first_sequence, const SequenceBounds& bounds) {
  const LaunchConfig config =
      config_of("gated_delta_forward", blocks_for(a.value_dim, block_columns), a.value_heads, bounds.count);
  with_room(a.key_dim,
            [&]<int dim>() { launch(config, gated_delta_forward_kernel<T, dim>, a, first_sequence, bounds); });
}

template <class T>
void step(const GatedDeltaForwardArgs& a) {
  const LaunchConfig config =
      config_of("gated_delta_step", blocks_for(a.value_dim, block_columns), a.value_heads, a.sequences);
  with_room(a.key_dim, [&]<int dim>() { launch(config, gated_delta_step_kernel<T, dim>, a); });
}

template <class T>
void backward_sequences(const GatedDeltaBackwardArgs& a, int64_t first_sequence, const SequenceBounds& bounds) {
  GatedDeltaForwardArgs forward{a};
  forward.missing = a.work.missing;
  forward.chunk_states = a.work.chunk_states;
  forward_sequences<T>(forward, first_sequence, bounds);
  const LaunchConfig grad_state =
      config_of("gated_delta_grad_state", blocks_for(a.value_dim, block_columns), a.value_heads, bounds.count);
  with_room(a.key_dim,
            [&]<int dim>() { launch(grad_state, gated_delta_grad_state_kernel<T, dim>, a, first_sequence, bounds); });
  const int64_t first_row = bounds.at[0], end_row = bounds.at[bounds.count];
  const int64_t first_chunk = gated_delta_first_chunk(first_sequence, first_row);
  const int64_t end_chunk = gated_delta_first_chunk(first_sequence + bounds.count, end_row);
  // z has 16 bits.
  constexpr int64_t most_chunks = 65535;
  for (int64_t from = first_chunk; from < end_chunk; from += most_chunks) {
    const LaunchConfig chunks = config_of("gated_delta_chunks", blocks_for(a.key_dim, block_columns), a.value_heads,
                                          end_chunk - from < most_chunks ? end_chunk - from : most_chunks);
    with_room(a.value_dim,
              [&]<int dim>() { launch(chunks, gated_delta_chunk_kernel<T, dim>, a, first_sequence, from, bounds); });
  }
  launch(config_of("gated_delta_grad_rows", blocks_for((end_row - first_row) * a.key_heads, warps)),
         gated_delta_grad_rows_kernel<T>, a, first_row, end_row);
  launch(config_of("gated_delta_grad_decay", blocks_for((end_chunk - first_chunk) * a.value_heads, warps)),
         gated_delta_grad_decay_kernel<T>, a, first_sequence, first_chunk, end_chunk, bounds);
  if (a.grad_A_log != nullptr || a.grad_dt_bias != nullptr)
    launch(config_of("gated_delta_weight_gradient", blocks_for(a.value_heads, threads), 2),
           gated_delta_weight_gradient_kernel, a, first_sequence, bounds);
}

// start(first sequence, bounds) for as many sequences at a time as a launch takes.
template <class Start>
void for_each_counted_launch(const int32_t* cu_seqlens, int64_t sequences, const Start& start) {
  int64_t first = 0;
  for_each_launch(cu_seqlens, sequences, [&](const SequenceBounds& bounds) {
    if (bounds.at[bounds.count] > bounds.at[0]) start(first, bounds);
    first += bounds.count;
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE

namespace lathe::kernels {

template <DeviceKind>
void gated_delta_forward_all(const GatedDeltaForwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) {
    if (args.states != nullptr) return step<T>(args);
    for_each_counted_launch(args.bounds, args.sequences, [&](int64_t first, const SequenceBounds& bounds) {
      forward_sequences<T>(args, first, bounds);
    });
  });
}
template void gated_delta_forward_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedDeltaForwardArgs&);

template <DeviceKind>
void gated_delta_backward_all(const GatedDeltaBackwardArgs& args) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_counted_launch(args.cu_seqlens, args.sequences, [&](int64_t first, const SequenceBounds& bounds) {
      backward_sequences<T>(args, first, bounds);
    });
  });
}
template void gated_delta_backward_all<DeviceKind::LATHE_CUDA_NAMESPACE>(const GatedDeltaBackwardArgs&);

}  // namespace lathe::kernels
