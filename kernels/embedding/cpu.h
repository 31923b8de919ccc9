// What the bodies of embedding_backward read and write, and the CPU's.
#pragma once

#include "core/dtype.h"
#include "kernels/arguments/matrix.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {

// The rows are those of grad_weight that some token names: row r is row_id[r]. To it belong the pieces [row_piece[r],
// row_piece[r + 1]), one for each sequence that has the id, in the sequences' order; to a piece p the tokens
// order[piece_start[p]] up to order[piece_start[p + 1] − 1], ascending. A row without pieces is left alone.
struct EmbeddingBackwardArgs {
  DType dtype;         // of grad_out: f32 | bf16 | f16
  Matrix grad_weight;  // f32
  ConstMatrix grad_out;
  const int32_t *row_id, *row_piece, *piece_start, *order;
  int64_t columns;
  int64_t row_begin, row_end;
};

template <Isa>
void embedding_backward_rows(EmbeddingBackwardArgs args);

}  // namespace lathe::kernels
