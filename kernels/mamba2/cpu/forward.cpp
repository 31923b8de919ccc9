#include "kernels/mamba2/cpu/state.h"

namespace lathe::kernels::LATHE_ISA::mamba2 {
namespace {

// S_t = γ S_{t−1} + B vᵀ. Returns S_tᵀ C.
LATHE_INLINE Block advance(State& state, const Tokens& tokens, int64_t t, const Block& v, int64_t rows) {
  const Block gamma = splat_block(tokens.gamma[t]);
  Block out{};
  for (int64_t i = 0; i < rows; ++i) {
    const Block row = fma_block(splat_block(tokens.b[t][i]), v, gamma * state.row(i));
    state.set_row(i, row);
    out = fma_block(splat_block(tokens.c[t][i]), row, out);
  }
  return out;
}

// Where S of the sequence begins, and where a step leaves it.
LATHE_INLINE float* state_of(const Mamba2ForwardArgs& args, const Place& place) {
  return args.states + args.matrix_of_head(args.slots[place.sequence], place.head);
}

template <class T>
void forward_block(const Mamba2ForwardArgs& args, const Place& place) {
  const int64_t rows = args.state_size, columns = args.head_dim, column = place.column, count = place.count;
  const Block skip = splat_block(number_of<T>(args.D, place.head));
  State state;
  Tokens tokens;
  if (args.states == nullptr || args.contexts[place.sequence] == place.end - place.begin) {
    state.clear(rows);
  } else {
    state.load(state_of(args, place), rows, columns, column, count);
  }
  for (int64_t first = place.begin; first < place.end; first += most_tokens) {
    const int64_t here = place.end - first < most_tokens ? place.end - first : most_tokens;
    tokens.load<T>(args, place.head, first, here);
    if (args.chunk_states != nullptr && place.at_chunk_bound(first))
      state.store(args.chunk_states + args.matrix_of_head(place.chunk_of(first), place.head), rows, columns, column,
                  count);
    for (int64_t t = 0; t < here; ++t) {
      const int64_t row = first + t;
      const Block x = load_block(row_of<T>(args.xbc, row) + args.x_column(place.head) + column, count);
      const Block out = advance(state, tokens, t, splat_block(tokens.step[t]) * x, rows);
      if (args.out.data == nullptr) continue;
      store_block(row_of<T>(args.out, row) + place.head * columns + column, fma_block(skip, x, out), count);
    }
  }
  if (args.states != nullptr) state.store(state_of(args, place), rows, columns, column, count);
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA::mamba2

namespace lathe::kernels {

template <Isa>
void mamba2_forward_parts(Mamba2ForwardArgs args, int64_t begin, int64_t end) {
  using namespace LATHE_ISA;
  with_element(args.dtype, [&]<class T>(T) {
    mamba2::for_each_block(args, args.bounds, begin, end,
                           [&](const mamba2::Place& place) { mamba2::forward_block<T>(args, place); });
  });
}
template void mamba2_forward_parts<Isa::LATHE_ISA>(Mamba2ForwardArgs, int64_t, int64_t);

}  // namespace lathe::kernels
