#include "kernels/gated_delta/cpu/chunk.h"
#include "kernels/gated_delta/cpu/state.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using namespace gated_delta;

// The sums of bodies.h for a value head's γ in a chunk. A row of the table is for r, the last one for E, a column for
// s, the first one for S₀.
constexpr int64_t chunk_tokens = token_chunk;
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

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

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
