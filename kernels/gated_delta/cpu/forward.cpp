#include "kernels/gated_delta/cpu/state.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using namespace gated_delta;

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

// Where S of the sequence begins, and where a step leaves it.
LATHE_INLINE float* state_of(const GatedDeltaForwardArgs& args, const Place& place) {
  const int64_t slot = args.slots[place.sequence];
  return args.states + (slot * args.value_heads + place.head) * args.key_dim * args.value_dim;
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

}  // namespace lathe::kernels
