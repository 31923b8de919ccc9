#include "kernels/gated_delta/cpu/state.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

using namespace gated_delta;

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

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

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

}  // namespace lathe::kernels
