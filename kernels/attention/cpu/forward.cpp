// The forward of a tile: which body computes it, and the merge of chunks that were computed apart.
#include "kernels/attention/cpu/tile.h"

namespace lathe::kernels {

template <Isa>
void attention_tile(const AttentionTileArgs& args) {
  rows_of(args) <= attention_few_rows ? few_rows_tile(args) : many_rows_tile(args);
}
template void attention_tile<Isa::LATHE_ISA>(const AttentionTileArgs&);

template <Isa>
void attention_tile_chunks(const AttentionTileArgs& args) {
  rows_of(args) <= attention_few_rows ? few_rows_tile_chunks(args) : many_rows_tile_chunks(args);
}
template void attention_tile_chunks<Isa::LATHE_ISA>(const AttentionTileArgs&);

template <Isa>
void attention_tile_merge(const AttentionTileArgs& args) {
  const int64_t rows = rows_of(args), dim = args.call->padded_dim;
  float* const out = args.scratch;
  const RowStates state{out + rows * dim, out + rows * (dim + 1) + row_padding, out};
  clear(state, rows, dim);
  for (int64_t chunk = args.chunk_begin; chunk < args.chunk_end; ++chunk) {
    for (int64_t row = 0; row < rows;) {
      const int count = next_block(rows - row);
      merge_chunk(count, partial_result(args, chunk, row, count), from_row(state, row, dim), dim);
      row += count;
    }
  }
  write_rows(args, state);
}
template void attention_tile_merge<Isa::LATHE_ISA>(const AttentionTileArgs&);

}  // namespace lathe::kernels
