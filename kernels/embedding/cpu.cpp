#include "kernels/embedding/cpu.h"

#include "kernels/simd/element.h"
#include "kernels/simd/row.h"

namespace lathe::kernels::LATHE_ISA {
namespace {

template <class T>
void add_row(const EmbeddingBackwardArgs& args, int64_t r) {
  if (args.row_piece[r] == args.row_piece[r + 1]) return;
  float* row = row_of<float>(args.grad_weight, args.row_id[r]);
  for_row(args.columns, [&](int64_t i, int count) {
    Vec total = load_some(row + i, count);
    for (int32_t piece = args.row_piece[r]; piece < args.row_piece[r + 1]; ++piece) {
      Vec sum = zero();
      for (int32_t k = args.piece_start[piece]; k < args.piece_start[piece + 1]; ++k) {
        sum = sum + load_some(row_of<T>(args.grad_out, args.order[k]) + i, count);
      }
      total = total + sum;
    }
    store_some(row + i, total, count);
  });
}

}  // namespace
}  // namespace lathe::kernels::LATHE_ISA

namespace lathe::kernels {

template <Isa>
void embedding_backward_rows(EmbeddingBackwardArgs args) {
  for (int64_t r = args.row_begin; r < args.row_end; ++r) {
    with_element(args.dtype, [&]<class T>(T) { add_row<T>(args, r); });
  }
}
template void embedding_backward_rows<Isa::LATHE_ISA>(EmbeddingBackwardArgs);

}  // namespace lathe::kernels
