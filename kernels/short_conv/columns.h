// What the CPU bodies of convolutions over tokens (short_conv.h, kernels/causal_conv/causal_conv.h) share. For cpu.cpp
// only.
#pragma once

#include "kernels/short_conv/taps.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {

// A row is walked in chunks of columns whose weights, which the tensor has column by column, are laid out by taps once.
inline constexpr int64_t conv_chunk = 256;  // columns

struct ChunkTaps {
  float taps[most_conv_taps][conv_chunk];
  float bias[conv_chunk];  // zeros where there is none
};

template <class T>
LATHE_INLINE void load_taps(ChunkTaps& weights, const ConvTaps& conv, int64_t first, int64_t count) {
  float flat[most_conv_taps * conv_chunk];
  const T* const from = static_cast<const T*>(conv.weight) + first * conv.taps;
  for_row(count * conv.taps, [&](int64_t i, int n) { store_some(flat + i, load_some(from + i, n), n); });
  for (int j = 0; j < conv.taps; ++j)
    for (int64_t i = 0; i < count; ++i) weights.taps[j][i] = flat[i * conv.taps + j];
  const T* const bias = static_cast<const T*>(conv.bias);
  for_row(count, [&](int64_t i, int n) {
    store_some(weights.bias + i, bias != nullptr ? load_some(bias + first + i, n) : zero(), n);
  });
}

// body(weights, first column, columns) for each chunk of columns [begin, end).
template <class T, class Body>
LATHE_INLINE void for_each_chunk(const ConvTaps& conv, int64_t begin, int64_t end, const Body& body) {
  ChunkTaps weights;
  for (int64_t first = begin; first < end; first += conv_chunk) {
    const int64_t count = end - first < conv_chunk ? end - first : conv_chunk;
    load_taps<T>(weights, conv, first, count);
    body(weights, first, count);
  }
}

LATHE_INLINE int least(int64_t a, int b) { return a < b ? static_cast<int>(a) : b; }

// Adds to the gradients of `args`, of one vector of columns: each tap's sum over a sequence is one chain in the tokens'
// order, and so is the bias's. gradient(row, first row of its sequence) is the convolution's own, input(row) what it
// takes.
template <class Args, class Gradient, class Input>
LATHE_INLINE void add_weight_gradients(const Args& args, int64_t column, int count, const Gradient& gradient,
                                       const Input& input) {
  const int last = args.taps - 1;
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t first = args.cu_seqlens[s];
    Vec taps[most_conv_taps] = {}, bias = zero();
    for (int64_t row = first; row < args.cu_seqlens[s + 1]; ++row) {
      const Vec own = gradient(row, first);
      bias = bias + own;
      for (int k = least(row - first, last); k >= 0; --k) taps[last - k] = fma(own, input(row - k), taps[last - k]);
    }
    for (int j = 0; args.grad_weight != nullptr && j < args.taps; ++j) {
      float sums[lanes];
      store(sums, taps[j]);
      for (int i = 0; i < count; ++i) args.grad_weight[(column + i) * args.taps + j] += sums[i];
    }
    if (args.grad_bias == nullptr) continue;
    float* const grad_bias = args.grad_bias + column;
    store_some(grad_bias, load_some(grad_bias, count) + bias, count);
  }
}

}  // namespace lathe::kernels::LATHE_ISA
