// The chunks of the backward's tokens, and what a token adds in them. Like state.h.
#pragma once

#include "kernels/gated_delta/cpu/state.h"

namespace lathe::kernels::LATHE_ISA::gated_delta {

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

// The chunk's rows, in `place`; false where the number has no chunk.
LATHE_INLINE bool find_chunk(const GatedDeltaBackwardArgs& args, Chunk& chunk, Place& place) {
  const TokenChunk found = find_token_chunk(args.cu_seqlens, args.sequences, chunk.number);
  place.sequence = found.sequence;
  place.begin = found.begin;
  place.end = found.end;
  chunk.is_first = found.is_first;
  chunk.is_last = found.is_last;
  return found.begin < found.end;
}

}  // namespace lathe::kernels::LATHE_ISA::gated_delta
