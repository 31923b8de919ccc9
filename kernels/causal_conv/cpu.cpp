#include "kernels/causal_conv/bodies.h"

#include "kernels/short_conv/columns.h"
#include "kernels/simd/element.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

// A sequence's rows of this call, and those before them, from a column on.
template <class T>
struct Sequence {
  const CausalConv& conv;
  int64_t begin, end;
  int64_t earlier = 0;  // tokens before `begin`
  T* state = nullptr;   // of the last of them
  int64_t state_row = 0;

  LATHE_INLINE Sequence(const CausalConv& c, int64_t s) : conv(c), begin(c.cu_seqlens[s]), end(c.cu_seqlens[s + 1]) {}
  LATHE_INLINE Sequence(const CausalConvForwardArgs& args, int64_t s)
      : Sequence<T>(static_cast<const CausalConv&>(args), s) {
    if (args.states.contexts == nullptr) return;
    earlier = args.states.contexts[s] - (end - begin);
    state = static_cast<T*>(args.states.data) + args.states.slots[s] * args.states.slot;
    state_row = args.states.row;
  }
  // Of a row that may lie before `begin`, as far as the state goes.
  LATHE_INLINE const T* x(int64_t row) const {
    return row >= begin ? row_of<T>(conv.x, row) : state + (row - begin + conv.taps - 1) * state_row;
  }
};

// The rows that one of the convolution's results is of.
template <class T>
struct Terms {
  const ChunkTaps& weights;
  int last, before;
  const T* x[most_conv_taps];  // of the token that is so many before

  LATHE_INLINE Terms(const Sequence<T>& sequence, const ChunkTaps& w, int64_t row, int64_t first)
      : weights(w), last(sequence.conv.taps - 1), before(least(sequence.earlier + row - sequence.begin, last)) {
    for (int k = 0; k <= before; ++k) x[k] = sequence.x(row - k) + first;
  }
  LATHE_INLINE Vec convolved(int64_t i, int n) const {
    Vec sum = load_some(weights.bias + i, n);
    for (int k = before; k >= 0; --k) sum = fma(load_some(weights.taps[last - k] + i, n), load_some(x[k] + i, n), sum);
    return sum;
  }
};

// Of what has grad_out, the gradient of the convolution's result c.
LATHE_INLINE Vec of_convolved(Vec grad_out, Vec c) {
  const Vec one = splat(1.0f), e = exp(-c), s = one / (one + e);
  const Vec rest = select((VecI)(c > zero()), e * s, one - s);  // 1 − s, which cancels where s is near 1
  return grad_out * (s * fma(c, rest, one));
}

// The sequence's last rows take the place of those that the state had.
template <class T>
void keep(const Sequence<T>& sequence, int64_t first, int64_t count) {
  const int64_t last = sequence.conv.taps - 1;
  for (int64_t j = 0; j < last; ++j) {
    T* const to = sequence.state + j * sequence.state_row + first;
    const int64_t row = sequence.end - last + j;
    const bool exists = row >= sequence.begin - sequence.earlier;
    const T* const from = exists ? sequence.x(row) + first : nullptr;
    for_row(count, [&](int64_t i, int n) { store_some(to + i, exists ? load_some(from + i, n) : zero(), n); });
  }
}

template <class T>
void forward_chunk(const CausalConvForwardArgs& args, const ChunkTaps& weights, int64_t first, int64_t count) {
  for (int64_t s = 0; s < args.sequences; ++s) {
    const Sequence<T> sequence(args, s);
    for (int64_t row = sequence.begin; row < sequence.end; ++row) {
      const Terms<T> terms(sequence, weights, row, first);
      T* const out = row_of<T>(args.out, row) + first;
      for_row(count, [&](int64_t i, int n) {
        const Vec c = terms.convolved(i, n);
        store_some(out + i, c / (splat(1.0f) + exp(-c)), n);
      });
    }
    if (sequence.state != nullptr && sequence.begin < sequence.end) keep(sequence, first, count);
  }
}

// A row of grad_x is made when the last row that takes its x has its gradient; so many of these are kept.
template <class T>
void backward_chunk(const CausalConvBackwardArgs& args, const ChunkTaps& weights, int64_t first, int64_t count) {
  static_assert((most_conv_taps & (most_conv_taps - 1)) == 0);
  float kept[most_conv_taps][conv_chunk];
  const auto of = [&](int64_t row) { return kept[row & (most_conv_taps - 1)]; };
  const int last = args.taps - 1;
  for (int64_t s = 0; s < args.sequences; ++s) {
    const Sequence<T> sequence(args, s);
    for (int64_t row = sequence.begin; row < sequence.end + last; ++row) {
      if (row < sequence.end) {
        const Terms<T> terms(sequence, weights, row, first);
        const T* const grad_out = row_of<T>(args.grad_out, row) + first;
        for_row(count, [&](int64_t i, int n) {
          store_some(of(row) + i, of_convolved(load_some(grad_out + i, n), terms.convolved(i, n)), n);
        });
      }
      const int64_t done = row - last;
      if (done < sequence.begin) continue;
      const int after = least(sequence.end - 1 - done, last);
      T* const grad_x = row_of<T>(args.grad_x, done) + first;
      for_row(count, [&](int64_t i, int n) {
        Vec sum = zero();
        for (int k = 0; k <= after; ++k)
          sum = fma(load_some(weights.taps[last - k] + i, n), load_some(of(done + k) + i, n), sum);
        store_some(grad_x + i, sum, n);
      });
    }
  }
}

template <class T>
void weight_gradients(const CausalConvBackwardArgs& args, const ChunkTaps& weights, int64_t first, int64_t count) {
  for_row(count, [&](int64_t i, int n) {
    const int64_t column = first + i;
    const auto x = [&](int64_t row) { return load_some(row_of<T>(args.x, row) + column, n); };
    add_weight_gradients(
        args, column, n,
        [&](int64_t row, int64_t first_row) {
          Vec c = load_some(weights.bias + i, n);
          for (int k = least(row - first_row, args.taps - 1); k >= 0; --k)
            c = fma(load_some(weights.taps[args.taps - 1 - k] + i, n), x(row - k), c);
          return of_convolved(load_some(row_of<T>(args.grad_out, row) + column, n), c);
        },
        x);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void causal_conv_forward_columns(CausalConvForwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_chunk<T>(
        args, args.column_begin, args.column_end,
        [&](const ChunkTaps& weights, int64_t first, int64_t count) { forward_chunk<T>(args, weights, first, count); });
  });
}
template void causal_conv_forward_columns<Isa::LATHE_ISA>(CausalConvForwardArgs);

template <Isa>
void causal_conv_backward_columns(CausalConvBackwardArgs args) {
  with_element(args.dtype, [&]<class T>(T) {
    for_each_chunk<T>(args, args.column_begin, args.column_end,
                      [&](const ChunkTaps& weights, int64_t first, int64_t count) {
                        backward_chunk<T>(args, weights, first, count);
                        if (args.grad_weight != nullptr || args.grad_bias != nullptr)
                          weight_gradients<T>(args, weights, first, count);
                      });
  });
}
template void causal_conv_backward_columns<Isa::LATHE_ISA>(CausalConvBackwardArgs);

}  // namespace lathe::kernels
