#include "kernels/mamba2/cpu/state.h"

namespace lathe::kernels::LATHE_ISA::mamba2 {
namespace {

// A chunk's tokens by rows, or a table of them: of its pairs a row is for r, a column for s.
using TokenRows = float[token_chunk][most_dim];
using Pairs = float[token_chunk][token_chunk];
static_assert(token_chunk % width == 0);

LATHE_INLINE Block load_row(const float* row, int64_t column, int64_t count) { return load_block(row + column, count); }
LATHE_INLINE float sum_of_block(const Block& block) {
  Vec sum = block.at[0];
  for (int v = 1; v < vectors; ++v) sum = sum + block.at[v];
  return sum_lanes(sum);
}

// The sums of bodies.h for heads of one group in a chunk.
template <class T>
class ChunkHeads {
 public:
  ChunkHeads(const Mamba2BackwardArgs& args, int64_t number, const TokenChunk& chunk, int64_t part)
      : args_(args), number_(number), chunk_(chunk), part_(part), count_(chunk.end - chunk.begin) {}

  void run() {
    const Mamba2Part heads = mamba2_part(args_, part_);
    for (int64_t t = 0; t < count_; ++t) {
      const T* const xbc = row_of<T>(args_.xbc, chunk_.begin + t);
      widen_row(b_[t], xbc + args_.b_column(heads.begin), args_.state_size);
      widen_row(c_[t], xbc + args_.c_column(heads.begin), args_.state_size);
    }
    multiply_pairs(of_states_, c_, b_, args_.state_size);
    for (head_ = heads.begin; head_ < heads.end; ++head_) {
      first_ = head_ == heads.begin;
      load_head();
      weigh_pairs();
      grad_x();
      grad_b();
      grad_c();
      store_steps();
    }
  }

 private:
  // table[r][s] = left_r · right_s, of all s of the chunk.
  void multiply_pairs(Pairs& table, const TokenRows& left, const TokenRows& right, int64_t dim) {
    for (int64_t first = 0; first < count_; first += width) {
      const int64_t here = count_ - first < width ? count_ - first : width;
      block_.clear(dim);
      for (int64_t s = 0; s < here; ++s)
        for (int64_t i = 0; i < dim; ++i) block_.at[i][s] = right[first + s][i];
      for (int64_t r = 0; r < count_; ++r) store_block(table[r] + first, sum_of_rows(block_, left[r], dim), width);
    }
  }

  void load_head() {
    load_steps<T>(args_, head_, chunk_.begin, count_, raw_, step_, gamma_);
    for (int64_t t = 0; t < count_; ++t) {
      const int64_t row = chunk_.begin + t;
      widen_row(x_[t], row_of<T>(args_.xbc, row) + args_.x_column(head_), args_.head_dim);
      widen_row(grad_out_[t], row_of<T>(args_.grad_out, row) + head_ * args_.head_dim, args_.head_dim);
      grad_step_[t] = of_begin_[t] = of_end_[t] = 0.0f;
    }
    of_D_ = 0.0f;
  }

  // D(s, r), 0 for r < s; then what it is multiplied by.
  void weigh_pairs() {
    multiply_pairs(of_values_, grad_out_, x_, args_.head_dim);
    float begin = 1.0f;
    for (int64_t r = 0; r < count_; ++r) {
      begin *= gamma_[r];
      from_begin_[r] = begin;
      const Vec gamma = splat(gamma_[r]);
      for_row(token_chunk, [&](int64_t s, int n) {
        store_some(to_end_ + s, r == 0 ? zero() : gamma * load_some(to_end_ + s, n), n);
      });
      to_end_[r] = 1.0f;
      for_row(r + 1, [&](int64_t s, int n) {
        const Vec decay = load_some(to_end_ + s, n);
        store_some(of_states_weighed_[r] + s, decay * load_some(of_states_[r] + s, n), n);
        store_some(of_values_[r] + s, (decay * load_some(step_ + s, n)) * load_some(of_values_[r] + s, n), n);
      });
    }
  }

  LATHE_INLINE void load_state(const float* states, int64_t column, int64_t count) {
    block_.load(states + args_.matrix_of_head(number_, head_), args_.state_size, args_.head_dim, column, count);
  }
  // Rows [row, row + count) as columns.
  LATHE_INLINE void load_transposed_state(const float* states, int64_t row, int64_t count) {
    for_transposed(states + args_.matrix_of_head(number_, head_), args_.head_dim, row, count,
                   [&](int64_t j, int v, Vec x) { lathe::kernels::LATHE_ISA::store(block_.at[j] + v * lanes, x); });
  }
  // body(column, count) for the blocks of a row.
  template <class Body>
  LATHE_INLINE static void for_blocks(int64_t dim, const Body& body) {
    for (int64_t column = 0; column < dim; column += width) body(column, dim - column < width ? dim - column : width);
  }

  void grad_x() {
    const Block skip = splat_block(number_of<T>(args_.D, head_));
    for_blocks(args_.head_dim, [&](int64_t column, int64_t count) {
      if (!chunk_.is_last) load_state(args_.work.chunk_grad_states, column, count);
      for (int64_t s = 0; s < count_; ++s) {
        Block grad_v{};
        for (int64_t r = s; r < count_; ++r)
          grad_v = fma_block(splat_block(of_states_weighed_[r][s]), load_row(grad_out_[r], column, count), grad_v);
        if (!chunk_.is_last)
          grad_v = fma_block(splat_block(to_end_[s]), sum_of_rows(block_, b_[s], args_.state_size), grad_v);
        const Block x = load_row(x_[s], column, count), grad_out = load_row(grad_out_[s], column, count);
        grad_step_[s] += sum_of_block(grad_v * x);
        of_D_ += sum_of_block(grad_out * x);
        store_block(row_of<T>(args_.grad_xbc, chunk_.begin + s) + args_.x_column(head_) + column,
                    fma_block(skip, grad_out, splat_block(step_[s]) * grad_v), count);
      }
    });
  }

  // What the heads of the part have given so far, and this one.
  LATHE_INLINE void add_to_part(float* of, int64_t t, int64_t column, int64_t count, const Block& gradient) const {
    float* const sum = of + ((chunk_.begin + t) * args_.parts() + part_) * args_.state_size + column;
    store_block(sum, first_ ? gradient : load_block(sum, count) + gradient, count);
  }

  void grad_b() {
    for_blocks(args_.state_size, [&](int64_t column, int64_t count) {
      if (!chunk_.is_last) load_transposed_state(args_.work.chunk_grad_states, column, count);
      for (int64_t s = 0; s < count_; ++s) {
        Block gradient{};
        if (!chunk_.is_last) {
          gradient = splat_block(to_end_[s] * step_[s]) * sum_of_rows(block_, x_[s], args_.head_dim);
          of_end_[s] += sum_of_block(gradient * load_row(b_[s], column, count));
        }
        for (int64_t r = s; r < count_; ++r)
          gradient = fma_block(splat_block(of_values_[r][s]), load_row(c_[r], column, count), gradient);
        add_to_part(args_.work.grad_b, s, column, count, gradient);
      }
    });
  }

  void grad_c() {
    for_blocks(args_.state_size, [&](int64_t column, int64_t count) {
      if (!chunk_.is_first) load_transposed_state(args_.work.chunk_states, column, count);
      for (int64_t r = 0; r < count_; ++r) {
        Block gradient{};
        if (!chunk_.is_first) {
          gradient = splat_block(from_begin_[r]) * sum_of_rows(block_, grad_out_[r], args_.head_dim);
          of_begin_[r] += sum_of_block(gradient * load_row(c_[r], column, count));
        }
        for (int64_t s = 0; s <= r; ++s)
          gradient = fma_block(splat_block(of_values_[r][s]), load_row(b_[s], column, count), gradient);
        add_to_part(args_.work.grad_c, r, column, count, gradient);
      }
    });
  }

  // ⟨S₀, E⟩, decayed through the chunk.
  LATHE_INLINE float of_bounds() const {
    if (chunk_.is_first || chunk_.is_last) return 0.0f;
    const int64_t matrix = args_.matrix_of_head(number_, head_);
    const float *const before = args_.work.chunk_states + matrix, *const after = args_.work.chunk_grad_states + matrix;
    return from_begin_[count_ - 1] * row_sum(args_.state_size * args_.head_dim, [&](Vec partial, int64_t i, int n) {
             return fma(load_some(before + i, n), load_some(after + i, n), partial);
           });
  }

  // γ's gradients times γ: column sums over r from the end on, of which each row takes those of s < t.
  LATHE_INLINE void sum_along(float* along) {
    float columns[token_chunk] = {}, ends[token_chunk], end = of_bounds(), begin = 0.0f;
    for (int64_t t = 0; t < count_; ++t) {
      ends[t] = end;
      end += of_end_[t];
    }
    for (int64_t t = count_ - 1; t >= 0; --t) {
      begin += of_begin_[t];
      along[t] = begin + ends[t] + row_sum(t, [&](Vec partial, int64_t s, int n) {
                   const Vec sum =
                       fma(load_some(of_values_[t] + s, n), load_some(of_states_[t] + s, n), load_some(columns + s, n));
                   store_some(columns + s, sum, n);
                   return partial + sum;
                 });
    }
  }

  void store_steps() {
    float along[token_chunk];
    sum_along(along);
    const Vec rate = exp(splat(number_of<T>(args_.A_log, head_)));
    const Vec least = splat(args_.dt_min), most = splat(args_.dt_max);
    float* const sums = args_.work.chunk_sums + (number_ * args_.heads + head_) * 3;
    sums[0] = row_sum(count_, [&](Vec partial, int64_t t, int n) {
      return partial - load_some(along + t, n) * (rate * load_some(step_ + t, n));
    });
    sums[1] = of_D_;
    sums[2] = row_sum(count_, [&](Vec partial, int64_t t, int n) {
      const Vec raw = load_some(raw_ + t, n), step = softplus(raw);
      const Vec slope = select((step < least) | (step > most), zero(), sigmoid(raw));
      const Vec of_raw = (load_some(grad_step_ + t, n) - load_some(along + t, n) * rate) * slope;
      for (int i = 0; i < n; ++i)
        store_partial(row_of<T>(args_.grad_dt, chunk_.begin + t + i) + head_, splat(of_raw[i]), 1);
      return partial + select(first_lanes(n), of_raw, zero());
    });
  }

  const Mamba2BackwardArgs& args_;
  const int64_t number_;
  const TokenChunk& chunk_;
  const int64_t part_, count_;
  int64_t head_ = 0;
  bool first_ = true;  // of the part's heads

  TokenRows b_, c_, x_, grad_out_;
  State block_;
  Pairs of_states_;                                                  // C_r · B_s
  Pairs of_states_weighed_;                                          // the same times D(s, r), s ≤ r
  Pairs of_values_;                                                  // grad_out_r · v_s times D(s, r), s ≤ r
  float raw_[token_chunk], step_[token_chunk], gamma_[token_chunk];  // of tokens
  float from_begin_[token_chunk], to_end_[token_chunk];              // D(0, r), D(s, end)
  float of_begin_[token_chunk], of_end_[token_chunk];                // γ's gradients from S₀ to r, from s to E
  float grad_step_[token_chunk], of_D_ = 0.0f;                       // through v alone
};

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA::mamba2

namespace lathe::kernels {

template <Isa>
void mamba2_chunk_parts(Mamba2BackwardArgs args, int64_t begin, int64_t end) {
  LATHE_ISA::with_element(args.dtype, [&]<class T>(T) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t number = i / args.parts();
      const TokenChunk chunk = find_token_chunk(args.cu_seqlens, args.sequences, number);
      if (chunk.begin < chunk.end) LATHE_ISA::mamba2::ChunkHeads<T>(args, number, chunk, i % args.parts()).run();
    }
  });
}
template void mamba2_chunk_parts<Isa::LATHE_ISA>(Mamba2BackwardArgs, int64_t, int64_t);

}  // namespace lathe::kernels
