#include "kernels/mamba2/cpu/state.h"

namespace lathe::kernels::LATHE_ISA::mamba2 {
namespace {

// From the last token to the first: S's gradient.
template <class T>
void grad_state_block(const Mamba2BackwardArgs& args, const Place& place) {
  const int64_t rows = args.state_size, columns = args.head_dim, column = place.column, count = place.count;
  State grad;
  Tokens tokens;
  grad.clear(rows);
  const int64_t last = (place.end - place.begin - 1) / most_tokens * most_tokens;
  for (int64_t first = place.begin + last; first >= place.begin; first -= most_tokens) {
    const int64_t here = place.end - first < most_tokens ? place.end - first : most_tokens;
    tokens.load<T>(args, place.head, first, here);
    if (place.at_chunk_bound(first + here))
      grad.store(args.work.chunk_grad_states + args.matrix_of_head(place.chunk_of(first), place.head), rows, columns,
                 column, count);
    for (int64_t t = here - 1; t >= 0; --t) {
      const Block grad_out = load_block(row_of<T>(args.grad_out, first + t) + place.head * columns + column, count);
      const Block gamma = splat_block(tokens.gamma[t]);
      for (int64_t i = 0; i < rows; ++i)
        grad.set_row(i, gamma * fma_block(splat_block(tokens.c[t][i]), grad_out, grad.row(i)));
    }
  }
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA::mamba2

namespace lathe::kernels {

template <Isa>
void mamba2_grad_state_parts(Mamba2BackwardArgs args, int64_t begin, int64_t end) {
  using namespace LATHE_ISA;
  with_element(args.dtype, [&]<class T>(T) {
    mamba2::for_each_block(args, args.cu_seqlens, begin, end,
                           [&](const mamba2::Place& place) { mamba2::grad_state_block<T>(args, place); });
  });
}
template void mamba2_grad_state_parts<Isa::LATHE_ISA>(Mamba2BackwardArgs, int64_t, int64_t);

}  // namespace lathe::kernels
