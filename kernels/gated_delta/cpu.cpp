// S, or its gradient, is walked row by row in blocks of four vectors of columns, which fit into a first-level cache: a
// sum along the rows is a chain in each lane, and no lane needs another. Sums along the columns are made the same way
// of the transposed matrix, in the pass that begins with a load from memory.
#include "kernels/gated_delta/bodies.h"

#include "kernels/simd/element.h"
#include "kernels/simd/row.h"
#include "kernels/simd/transpose.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

constexpr int vectors = 4, width = vectors * lanes;
constexpr int most_dim = 256;

// One number for each column of a block.
struct Block {
  Vec at[vectors];
};
LATHE_INLINE Block splat_block(float x) {
  Block result;
  for (Vec& v : result.at) v = splat(x);
  return result;
}
LATHE_INLINE Block operator*(Block x, const Block& y) {
  for (int v = 0; v < vectors; ++v) x.at[v] = x.at[v] * y.at[v];
  return x;
}
LATHE_INLINE Block operator+(Block x, const Block& y) {
  for (int v = 0; v < vectors; ++v) x.at[v] = x.at[v] + y.at[v];
  return x;
}
LATHE_INLINE Block fma_block(const Block& x, const Block& y, Block z) {
  for (int v = 0; v < vectors; ++v) z.at[v] = fma(x.at[v], y.at[v], z.at[v]);
  return z;
}

LATHE_INLINE int count_of_vector(int64_t count, int v) {
  const int64_t left = count - v * lanes;
  return left >= lanes ? lanes : left > 0 ? static_cast<int>(left) : 0;
}
// The first `count` elements; the others are 0.
template <class T>
LATHE_INLINE Block load_block(const T* from, int64_t count) {
  Block result;
  for (int v = 0; v < vectors; ++v) {
    const int n = count_of_vector(count, v);
    result.at[v] = n > 0 ? load_some(from + v * lanes, n) : zero();
  }
  return result;
}
template <class T>
LATHE_INLINE void store_block(T* to, const Block& block, int64_t count) {
  for (int v = 0; v < vectors; ++v)
    if (const int n = count_of_vector(count, v); n > 0) store_some(to + v * lanes, block.at[v], n);
}

// A block of S, of its gradient, or of one of them transposed.
struct State {
  float at[most_dim][width];

  LATHE_INLINE Block row(int64_t i) const { return load_block(at[i], width); }
  LATHE_INLINE void set_row(int64_t i, const Block& block) { store_block(at[i], block, width); }
  void clear(int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) set_row(i, Block{});
  }
  // Columns [column, column + count) of a matrix whose rows are `stride` apart.
  void load(const float* from, int64_t rows, int64_t stride, int64_t column, int64_t count) {
    for (int64_t i = 0; i < rows; ++i) set_row(i, load_block(from + i * stride + column, count));
  }
  void store(float* to, int64_t rows, int64_t stride, int64_t column, int64_t count) const {
    for (int64_t i = 0; i < rows; ++i) store_block(to + i * stride + column, row(i), count);
  }
};

// visit(j, v, x): vector v of row j of the transposed matrix's block, of rows [row, row + count) of the matrix.
template <class Visit>
LATHE_INLINE void for_transposed(const float* matrix, int64_t columns, int64_t row, int64_t count, const Visit& visit) {
  for (int v = 0; v < vectors; ++v) {
    for (int64_t column = 0; column < columns; column += lanes) {
      const int n = columns - column < lanes ? static_cast<int>(columns - column) : lanes;
      VecU square[lanes];
      for (int i = 0; i < lanes; ++i)
        square[i] = v * lanes + i < count ? load_words(matrix + (row + v * lanes + i) * columns + column, n) : VecU{};
      transpose(square);
      for (int j = 0; j < n; ++j) visit(column + j, v, (Vec)square[j]);
    }
  }
}

LATHE_INLINE Vec softplus(Vec x) {
  const Vec e = exp(-abs(x));
  Vec log1p;
  for (int i = 0; i < lanes; ++i) log1p[i] = __builtin_log1pf(e[i]);
  return max(x, zero()) + log1p;
}

// Of A_log or dt_bias.
template <class T>
LATHE_INLINE float number_of(const void* from, bool wide, int64_t i) {
  return wide ? static_cast<const float*>(from)[i] : static_cast<float>(static_cast<const T*>(from)[i]);
}

template <class T>
LATHE_INLINE float inverse_length(const T* x, int64_t dim) {
  const float squares = row_sum(dim, [&](Vec partial, int64_t i, int n) {
    const Vec element = load_some(x + i, n);
    return fma(element, element, partial);
  });
  return 1.0f / __builtin_sqrtf(squares + 1e-6f);
}
LATHE_INLINE float q_scale(int64_t key_dim) { return 1.0f / __builtin_sqrtf(static_cast<float>(key_dim)); }

template <class T>
LATHE_INLINE void scale_row(float* to, const T* from, int64_t dim, float factor) {
  for_row(dim, [&](int64_t i, int n) { store_some(to + i, load_some(from + i, n) * splat(factor), n); });
}

// What a value head takes of up to so many tokens.
constexpr int64_t most_tokens = 16;
static_assert(gated_delta_chunk % most_tokens == 0);
struct Tokens {
  float q[most_tokens][most_dim], k[most_tokens][most_dim];
  float beta[most_tokens], gamma[most_tokens];
};

template <class T>
void load_tokens(Tokens& tokens, const GatedDeltaInputs& in, int64_t head, int64_t row, int64_t count) {
  const float dt_bias = number_of<T>(in.dt_bias, in.wide_dt_bias, head);
  float steps[most_tokens];
  for (int64_t t = 0; t < count; ++t) {
    const T* const qkv = row_of<T>(in.qkv, row + t);
    const T *const q = qkv + in.q_column(head), *const k = qkv + in.k_column(head);
    scale_row(tokens.q[t], q, in.key_dim, inverse_length(q, in.key_dim) * q_scale(in.key_dim));
    scale_row(tokens.k[t], k, in.key_dim, inverse_length(k, in.key_dim));
    tokens.beta[t] = static_cast<float>(row_of<T>(in.b, row + t)[head]);
    steps[t] = static_cast<float>(row_of<T>(in.a, row + t)[head]) + dt_bias;
  }
  const Vec rate = exp(splat(number_of<T>(in.A_log, in.wide_A_log, head)));
  for_row(count, [&](int64_t t, int n) {
    store_some(tokens.beta + t, sigmoid(load_some(tokens.beta + t, n)), n);
    store_some(tokens.gamma + t, exp(-(rate * softplus(load_some(steps + t, n)))), n);
  });
}

// Σ_i x[i] · row i: the even rows and the odd ones, as one chain of four products a vector would wait for itself.
LATHE_INLINE Block sum_of_rows(const State& state, const float* x, int64_t rows) {
  Block even{}, odd{};
  for (int64_t i = 0; i < rows; i += 2) {
    even = fma_block(splat_block(x[i]), state.row(i), even);
    odd = fma_block(splat_block(x[i + 1]), state.row(i + 1), odd);
  }
  return even + odd;
}

// S_t = γ S_{t−1} + k̂ δᵀ. Returns S_tᵀ q̂.
LATHE_INLINE Block advance(State& state, const Tokens& tokens, int64_t t, const Block& delta, int64_t rows) {
  const Block gamma = splat_block(tokens.gamma[t]);
  Block out{};
  for (int64_t i = 0; i < rows; ++i) {
    const Block row = fma_block(splat_block(tokens.k[t][i]), delta, gamma * state.row(i));
    state.set_row(i, row);
    out = fma_block(splat_block(tokens.q[t][i]), row, out);
  }
  return out;
}

// A block of one value head of one sequence.
struct Place {
  int64_t sequence, head, column, count;
  int64_t begin, end;  // the sequence's rows
};

// Where S of the sequence begins, and where a step leaves it.
LATHE_INLINE float* state_of(const GatedDeltaForwardArgs& args, const Place& place) {
  const int64_t slot = args.slots[place.sequence];
  return args.states + (slot * args.value_heads + place.head) * args.key_dim * args.value_dim;
}

// The checkpoint of the chunk that has a row.
LATHE_INLINE int64_t chunk_of(const Place& place, int64_t row) {
  return gated_delta_first_chunk(place.sequence, place.begin) + (row - place.begin) / gated_delta_chunk;
}
LATHE_INLINE int64_t matrix_of_chunk(const GatedDeltaInputs& in, int64_t chunk, int64_t head) {
  return (chunk * in.value_heads + head) * in.key_dim * in.value_dim;
}
LATHE_INLINE bool at_chunk_bound(const Place& place, int64_t row) {
  return (row - place.begin) % gated_delta_chunk == 0 && row > place.begin && row < place.end;
}

template <class T>
void forward_block(const GatedDeltaForwardArgs& args, const Place& place) {
  const int64_t rows = args.key_dim, columns = args.value_dim, column = place.column, count = place.count;
  State state;
  Tokens tokens;
  if (args.states == nullptr || args.contexts[place.sequence] == place.end - place.begin) {
    state.clear(rows);
  } else {
    state.load(state_of(args, place), rows, columns, column, count);
  }
  for (int64_t first = place.begin; first < place.end; first += most_tokens) {
    const int64_t here = place.end - first < most_tokens ? place.end - first : most_tokens;
    load_tokens<T>(tokens, args, place.head, first, here);
    if (args.chunk_states != nullptr && at_chunk_bound(place, first))
      state.store(args.chunk_states + matrix_of_chunk(args, chunk_of(place, first), place.head), rows, columns, column,
                  count);
    for (int64_t t = 0; t < here; ++t) {
      const int64_t row = first + t;
      const Block v = load_block(row_of<T>(args.qkv, row) + args.v_column(place.head) + column, count);
      const Block missing = fma_block(splat_block(-tokens.gamma[t]), sum_of_rows(state, tokens.k[t], rows), v);
      if (args.missing != nullptr)
        store_block(args.missing + (row * args.value_heads + place.head) * columns + column, missing, count);
      const Block out = advance(state, tokens, t, splat_block(tokens.beta[t]) * missing, rows);
      if (args.out.data != nullptr) store_block(row_of<T>(args.out, row) + place.head * columns + column, out, count);
    }
  }
  if (args.states != nullptr) state.store(state_of(args, place), rows, columns, column, count);
}

// From the last token to the first: S's gradient.
template <class T>
void grad_state_block(const GatedDeltaBackwardArgs& args, const Place& place) {
  const int64_t rows = args.key_dim, columns = args.value_dim, column = place.column, count = place.count;
  State grad;
  Tokens tokens;
  grad.clear(rows);
  const int64_t last = (place.end - place.begin - 1) / most_tokens * most_tokens;
  for (int64_t first = place.begin + last; first >= place.begin; first -= most_tokens) {
    const int64_t here = place.end - first < most_tokens ? place.end - first : most_tokens;
    load_tokens<T>(tokens, args, place.head, first, here);
    if (at_chunk_bound(place, first + here))
      grad.store(args.work.chunk_grad_states + matrix_of_chunk(args, chunk_of(place, first), place.head), rows, columns,
                 column, count);
    for (int64_t t = here - 1; t >= 0; --t) {
      const int64_t row = first + t;
      const Block grad_out = load_block(row_of<T>(args.grad_out, row) + place.head * columns + column, count);
      Block grad_delta{};
      for (int64_t i = 0; i < rows; ++i) {
        const Block added = fma_block(splat_block(tokens.q[t][i]), grad_out, grad.row(i));
        grad.set_row(i, added);
        grad_delta = fma_block(splat_block(tokens.k[t][i]), added, grad_delta);
      }
      store_block(args.work.grad_delta + (row * args.value_heads + place.head) * columns + column, grad_delta, count);
      const Block grad_found = splat_block(-tokens.beta[t]) * grad_delta, gamma = splat_block(tokens.gamma[t]);
      for (int64_t i = 0; i < rows; ++i)
        grad.set_row(i, gamma * fma_block(splat_block(tokens.k[t][i]), grad_found, grad.row(i)));
    }
  }
}

// What a token adds to S and to its gradient along Dv.
struct TokenColumns {
  float delta[most_dim], grad_found[most_dim], grad_out[most_dim];

  template <class T>
  LATHE_INLINE void load(const GatedDeltaBackwardArgs& args, int64_t row, int64_t head, float beta) {
    const int64_t place = (row * args.value_heads + head) * args.value_dim;
    scale_row(delta, args.work.missing + place, args.value_dim, beta);
    scale_row(grad_found, args.work.grad_delta + place, args.value_dim, -beta);
    scale_row(grad_out, row_of<T>(args.grad_out, row) + head * args.value_dim, args.value_dim, 1.0f);
  }
};

struct Chunk {
  int64_t number;
  bool is_first, is_last;  // of its sequence
};

// body(row, t, token's columns) for the place's rows, from the first or from the last on.
enum class Order { forward, backward };
template <class T, class Body>
LATHE_INLINE void for_tokens(const GatedDeltaBackwardArgs& args, const Place& place, Tokens& tokens, Order order,
                             const Body& body) {
  const int64_t groups = (place.end - place.begin + most_tokens - 1) / most_tokens;
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t first = place.begin + (order == Order::forward ? i : groups - 1 - i) * most_tokens;
    const int64_t here = place.end - first < most_tokens ? place.end - first : most_tokens;
    load_tokens<T>(tokens, args, place.head, first, here);
    for (int64_t j = 0; j < here; ++j) {
      const int64_t t = order == Order::forward ? j : here - 1 - j;
      TokenColumns token;
      token.load<T>(args, first + t, place.head, tokens.beta[t]);
      body(first + t, t, token);
    }
  }
}

// Rows [place.column, …) of S, which make the same rows of the gradients of q̂ and k̂ of a chunk's tokens.
template <class T>
class ChunkRows {
 public:
  ChunkRows(const GatedDeltaBackwardArgs& args, const Place& place, const Chunk& chunk)
      : args_(args), place_(place), chunk_(chunk), matrix_(matrix_of_chunk(args, chunk.number, place.head)) {}

  void run() {
    if (chunk_.is_first) {
      state_.clear(args_.value_dim);
    } else {
      take(args_.work.chunk_states);
      multiply_with_state();
    }
    go_forward();
    if (chunk_.is_last) {
      state_.clear(args_.value_dim);
    } else {
      take(args_.work.chunk_grad_states);
      multiply_with_grad_state();
    }
    go_backward();
  }

 private:
  void take(const float* matrices) {
    for_transposed(matrices + matrix_, args_.value_dim, place_.column, place_.count,
                   [&](int64_t j, int v, Vec x) { store(state_.at[j] + v * lanes, x); });
  }
  LATHE_INLINE Block own(const float* along_keys) const { return load_block(along_keys + place_.column, place_.count); }
  LATHE_INLINE float* own_gradient(float* of, int64_t row) const {
    return of + (row * args_.value_heads + place_.head) * args_.key_dim + place_.column;
  }
  // The block's share of a token's number.
  LATHE_INLINE void store_share(float* of, int64_t row, const Block& products) const {
    Vec sum = products.at[0];
    for (int v = 1; v < vectors; ++v) sum = sum + products.at[v];
    of[(row * args_.value_heads + place_.head) * (args_.key_dim / 8) + place_.column / width] = sum_lanes(sum);
  }

  void multiply_with_state() {
    for_tokens<T>(args_, place_, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const Block with_out = sum_of_rows(state_, token.grad_out, args_.value_dim),
                  with_found = sum_of_rows(state_, token.grad_found, args_.value_dim);
      store_share(args_.work.of_state, row, fma_block(own(tokens_.q[t]), with_out, own(tokens_.k[t]) * with_found));
    });
  }
  void go_forward() {
    for_tokens<T>(args_, place_, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const Block gamma = splat_block(tokens_.gamma[t]), k = own(tokens_.k[t]);
      Block grad_q{}, grad_k{};
      for (int64_t j = 0; j < args_.value_dim; ++j) {
        const Block decayed = gamma * state_.row(j);
        grad_k = fma_block(splat_block(token.grad_found[j]), decayed, grad_k);
        const Block added = fma_block(splat_block(token.delta[j]), k, decayed);
        state_.set_row(j, added);
        grad_q = fma_block(splat_block(token.grad_out[j]), added, grad_q);
      }
      store_block(own_gradient(args_.work.grad_q, row), grad_q, place_.count);
      store_block(own_gradient(args_.work.grad_k, row), grad_k, place_.count);
    });
  }
  void multiply_with_grad_state() {
    for_tokens<T>(args_, place_, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      store_share(args_.work.of_grad_state, row, own(tokens_.k[t]) * sum_of_rows(state_, token.delta, args_.value_dim));
    });
    if (chunk_.is_first) return;
    Block products{};
    for_transposed(
        args_.work.chunk_states + matrix_, args_.value_dim, place_.column, place_.count,
        [&](int64_t j, int v, Vec x) { products.at[v] = fma(load(state_.at[j] + v * lanes), x, products.at[v]); });
    store_block(
        args_.work.bounds_product + (chunk_.number * args_.value_heads + place_.head) * args_.key_dim + place_.column,
        products, place_.count);
  }
  void go_backward() {
    for_tokens<T>(args_, place_, tokens_, Order::backward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const Block gamma = splat_block(tokens_.gamma[t]), q = own(tokens_.q[t]), k = own(tokens_.k[t]);
      Block grad_k{};
      for (int64_t j = 0; j < args_.value_dim; ++j) {
        const Block added = fma_block(splat_block(token.grad_out[j]), q, state_.row(j));
        grad_k = fma_block(splat_block(token.delta[j]), added, grad_k);
        state_.set_row(j, gamma * fma_block(splat_block(token.grad_found[j]), k, added));
      }
      float* const sum = own_gradient(args_.work.grad_k, row);
      store_block(sum, load_block(sum, place_.count) + grad_k, place_.count);
    });
  }

  const GatedDeltaBackwardArgs& args_;
  const Place& place_;
  const Chunk& chunk_;
  int64_t matrix_;
  State state_;  // transposed: S, then its gradient
  Tokens tokens_;
};

// The sums of bodies.h for a value head's γ in a chunk. A row of the table is for r, the last one for E, a column for s,
// the first one for S₀.
constexpr int64_t chunk_tokens = gated_delta_chunk;
static_assert(chunk_tokens % width == 0);
template <class T>
class ChunkDecay {
 public:
  ChunkDecay(const GatedDeltaBackwardArgs& args, const Place& place, const Chunk& chunk)
      : args_(args), place_(place), chunk_(chunk), count_(place.end - place.begin) {}

  void run() {
    for (int64_t first = 0; first < count_; first += width) {
      load_columns(first);
      multiply_pairs(first);
    }
    take_bounds();
    float along[chunk_tokens];  // γ's gradient times γ
    sum(along);
    store_gradients(along);
  }

 private:
  // k̂ and δ of up to `width` tokens, as columns.
  void load_columns(int64_t first) {
    const int64_t end = count_ - first < width ? count_ - first : width;
    Place some = place_;
    some.begin += first;
    some.end = some.begin + end;
    k_.clear(args_.key_dim);
    delta_.clear(args_.value_dim);
    for_tokens<T>(args_, some, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const int64_t column = row - some.begin;
      for (int64_t i = 0; i < args_.key_dim; ++i) k_.at[i][column] = tokens_.k[t][i];
      for (int64_t i = 0; i < args_.value_dim; ++i) delta_.at[i][column] = token.delta[i];
    });
  }
  void multiply_pairs(int64_t first) {
    for_tokens<T>(args_, place_, tokens_, Order::forward, [&](int64_t row, int64_t t, const TokenColumns& token) {
      const int64_t r = row - place_.begin;
      gamma_[r] = tokens_.gamma[t];
      if (r <= first) return;
      const Block q = sum_of_rows(k_, tokens_.q[t], args_.key_dim), k = sum_of_rows(k_, tokens_.k[t], args_.key_dim);
      const Block out = sum_of_rows(delta_, token.grad_out, args_.value_dim),
                  found = sum_of_rows(delta_, token.grad_found, args_.value_dim);
      store_block(table_[r] + 1 + first, fma_block(q, out, k * found), width);
    });
  }
  float sum_of_shares(const float* of, int64_t token) const {
    const float* const shares = of + ((place_.begin + token) * args_.value_heads + place_.head) * (args_.key_dim / 8);
    return sum_of((args_.key_dim + width - 1) / width, shares);
  }
  static float sum_of(int64_t count, const float* from) {
    return row_sum(count, [&](Vec partial, int64_t i, int n) { return partial + load_some(from + i, n); });
  }
  void take_bounds() {
    const int64_t products = (chunk_.number * args_.value_heads + place_.head) * args_.key_dim;
    for (int64_t t = 0; t < count_; ++t) {
      table_[t][0] = chunk_.is_first ? 0.0f : sum_of_shares(args_.work.of_state, t);
      table_[count_][1 + t] = chunk_.is_last ? 0.0f : sum_of_shares(args_.work.of_grad_state, t);
    }
    table_[count_][0] =
        chunk_.is_first || chunk_.is_last ? 0.0f : sum_of(args_.key_dim, args_.work.bounds_product + products);
  }
  // A column's numbers are summed over r from the end on, each decayed to the row; then each row's, decayed from its s.
  void sum(float* along) {
    for (int64_t t = count_ - 1; t >= 0; --t) {
      const Vec gamma = splat(t + 1 < count_ ? gamma_[t + 1] : 1.0f);
      for_row(t + 1, [&](int64_t s, int n) {
        store_some(table_[t] + s, fma(gamma, load_some(table_[t + 1] + s, n), load_some(table_[t] + s, n)), n);
      });
    }
    float decays[chunk_tokens];
    for (int64_t t = 0; t < count_; ++t) {
      decays[t] = 1.0f;
      along[t] = row_sum(t + 1, [&](Vec partial, int64_t s, int n) {
        const Vec decay = load_some(decays + s, n) * splat(gamma_[t]);
        store_some(decays + s, decay, n);
        return fma(decay, load_some(table_[t] + s, n), partial);
      });
    }
  }
  void store_gradients(const float* along) {
    const int64_t head = place_.head;
    const Vec rate = exp(splat(number_of<T>(args_.A_log, args_.wide_A_log, head)));
    float steps[chunk_tokens];
    for (int64_t t = 0; t < count_; ++t)
      steps[t] = static_cast<float>(row_of<T>(args_.a, place_.begin + t)[head]) +
                 number_of<T>(args_.dt_bias, args_.wide_dt_bias, head);
    float* const sums = args_.work.chunk_sums + (chunk_.number * args_.value_heads + head) * 2;
    sums[0] = row_sum(count_, [&](Vec partial, int64_t t, int n) {
      return partial - load_some(along + t, n) * (rate * softplus(load_some(steps + t, n)));
    });
    sums[1] = row_sum(count_, [&](Vec partial, int64_t t, int n) {
      const Vec of_step = -(load_some(along + t, n) * (rate * sigmoid(load_some(steps + t, n))));
      for (int i = 0; i < n; ++i)
        store_partial(row_of<T>(args_.grad_a, place_.begin + t + i) + head, splat(of_step[i]), 1);
      return partial + of_step;
    });
  }

  const GatedDeltaBackwardArgs& args_;
  const Place& place_;
  const Chunk& chunk_;
  int64_t count_;
  State k_, delta_;
  Tokens tokens_;
  float gamma_[chunk_tokens], table_[chunk_tokens + 1][1 + chunk_tokens];
};

// The chunk's rows, in `place`; false where the number has no chunk.
LATHE_INLINE bool find_chunk(const GatedDeltaBackwardArgs& args, Chunk& chunk, Place& place) {
  int64_t s = 0;
  while (s + 1 < args.sequences && gated_delta_first_chunk(s + 1, args.cu_seqlens[s + 1]) <= chunk.number) ++s;
  const int64_t begin = args.cu_seqlens[s], end = args.cu_seqlens[s + 1];
  const int64_t of_sequence = chunk.number - gated_delta_first_chunk(s, begin);
  place.sequence = s;
  place.begin = begin + of_sequence * gated_delta_chunk;
  place.end = end < place.begin + gated_delta_chunk ? end : place.begin + gated_delta_chunk;
  chunk.is_first = of_sequence == 0;
  chunk.is_last = place.end == end;
  return place.begin < end;
}

// body(place) for each block of parts [begin, end) of `groups` groups of value heads, each `dim` wide. Of a place the
// body knows all but the rows.
template <class Body>
LATHE_INLINE void for_each_block(const GatedDeltaInputs& in, int64_t dim, int64_t begin, int64_t end,
                                 const Body& body) {
  const int64_t parts = gated_delta_parts(dim);
  for (int64_t part = begin; part < end; ++part) {
    const int64_t group = part / parts / in.value_heads, head = part / parts % in.value_heads;
    const int64_t first = part % parts * gated_delta_part;
    const int64_t last = first + gated_delta_part < dim ? first + gated_delta_part : dim;
    for (int64_t column = first; column < last; column += width)
      body(Place{group, head, column, last - column < width ? last - column : width, 0, 0});
  }
}

LATHE_INLINE void set_rows(Place& place, const int32_t* bounds) {
  place.begin = bounds[place.sequence];
  place.end = bounds[place.sequence + 1];
}

// Through x̂ = x · scale / √(Σ x² + 1e-6).
template <class T>
LATHE_INLINE void store_grad_of_normed(T* to, const T* x, const float* gradient, int64_t dim, float scale) {
  const float r = inverse_length(x, dim);
  const float along = row_sum(dim, [&](Vec partial, int64_t i, int n) {
    return fma(load_some(x + i, n), load_some(gradient + i, n), partial);
  });
  const Vec factor = splat(scale * r), less = splat(-(along * r) * r);
  for_row(dim, [&](int64_t i, int n) {
    store_some(to + i, factor * fma(less, load_some(x + i, n), load_some(gradient + i, n)), n);
  });
}

// What a value head adds to the gradients of its key head's q̂ and k̂.
LATHE_INLINE void add_head(const GatedDeltaBackwardArgs& args, int64_t row, int64_t head, float* grad_q,
                           float* grad_k) {
  const int64_t dim = args.key_dim, place = (row * args.value_heads + head) * dim;
  const float *const of_q = args.work.grad_q + place, *const of_k = args.work.grad_k + place;
  for_row(dim, [&](int64_t i, int n) {
    store_some(grad_q + i, load_some(grad_q + i, n) + load_some(of_q + i, n), n);
    store_some(grad_k + i, load_some(grad_k + i, n) + load_some(of_k + i, n), n);
  });
}

template <class T>
LATHE_INLINE void grad_values(const GatedDeltaBackwardArgs& args, int64_t row, int64_t head) {
  const int64_t dim = args.value_dim, place = (row * args.value_heads + head) * dim;
  const float *const missing = args.work.missing + place, *const grad_delta = args.work.grad_delta + place;
  T* const grad_v = row_of<T>(args.grad_qkv, row) + args.v_column(head);
  const Vec beta = sigmoid(splat(static_cast<float>(row_of<T>(args.b, row)[head])));
  for_row(dim, [&](int64_t i, int n) { store_some(grad_v + i, load_some(grad_delta + i, n) * beta, n); });
  const float grad_beta = row_sum(dim, [&](Vec partial, int64_t i, int n) {
    return fma(load_some(grad_delta + i, n), load_some(missing + i, n), partial);
  });
  store_partial(row_of<T>(args.grad_b, row) + head, splat(grad_beta) * (beta * (splat(1.0f) - beta)), 1);
}

template <class T>
void grad_row(const GatedDeltaBackwardArgs& args, int64_t row) {
  const int64_t group = args.value_heads / args.key_heads;
  for (int64_t first = 0; first < args.value_heads; first += group) {
    float grad_q[most_dim] = {}, grad_k[most_dim] = {};
    for (int64_t head = first; head < first + group; ++head) {
      add_head(args, row, head, grad_q, grad_k);
      grad_values<T>(args, row, head);
    }
    const T* const qkv = row_of<T>(args.qkv, row);
    T* const to = row_of<T>(args.grad_qkv, row);
    store_grad_of_normed(to + args.q_column(first), qkv + args.q_column(first), grad_q, args.key_dim,
                         q_scale(args.key_dim));
    store_grad_of_normed(to + args.k_column(first), qkv + args.k_column(first), grad_k, args.key_dim, 1.0f);
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void gated_delta_forward_parts(GatedDeltaForwardArgs args, int64_t begin, int64_t end) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_block(args, args.value_dim, begin, end, [&](Place place) {
      set_rows(place, args.bounds);
      if (place.end > place.begin) forward_block<T>(args, place);
    });
  });
}
template void gated_delta_forward_parts<Isa::LATHE_ISA>(GatedDeltaForwardArgs, int64_t, int64_t);

template <Isa>
void gated_delta_grad_state_parts(GatedDeltaBackwardArgs args, int64_t begin, int64_t end) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_block(args, args.value_dim, begin, end, [&](Place place) {
      set_rows(place, args.cu_seqlens);
      if (place.end > place.begin) grad_state_block<T>(args, place);
    });
  });
}
template void gated_delta_grad_state_parts<Isa::LATHE_ISA>(GatedDeltaBackwardArgs, int64_t, int64_t);

template <Isa>
void gated_delta_chunk_parts(GatedDeltaBackwardArgs args, int64_t begin, int64_t end) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_block(args, args.key_dim, begin, end, [&](Place place) {
      Chunk chunk{place.sequence, false, false};  // the group is one here
      if (find_chunk(args, chunk, place)) ChunkRows<T>(args, place, chunk).run();
    });
  });
}
template void gated_delta_chunk_parts<Isa::LATHE_ISA>(GatedDeltaBackwardArgs, int64_t, int64_t);

template <Isa>
void gated_delta_grad_rows(GatedDeltaBackwardArgs args, int64_t begin, int64_t end) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t row = begin; row < end; ++row) grad_row<T>(args, row);
  });
}
template void gated_delta_grad_rows<Isa::LATHE_ISA>(GatedDeltaBackwardArgs, int64_t, int64_t);

template <Isa>
void gated_delta_decay_heads(GatedDeltaBackwardArgs args, int64_t begin, int64_t end) {
  with_element(args.dtype, [&]<class T>(T) {
    for (int64_t i = begin; i < end; ++i) {
      Chunk chunk{i / args.value_heads, false, false};
      Place place{};
      place.head = i % args.value_heads;
      if (find_chunk(args, chunk, place)) ChunkDecay<T>(args, place, chunk).run();
    }
  });
}
template void gated_delta_decay_heads<Isa::LATHE_ISA>(GatedDeltaBackwardArgs, int64_t, int64_t);

}  // namespace lathe::kernels
