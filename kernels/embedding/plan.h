// Which tokens add to which row of an embedding's gradient, and in which order.
#pragma once

#include "core/tensor.h"
#include "kernels/embedding/cpu.h"

namespace lathe::kernels {

struct EmbeddingPlan {
  // i32 [embedding_plan_length(T)]: row_id [T], row_piece [T + 1], piece_start [T + 1], order [T], of which the first
  // `rows` ids have tokens; those after them have no pieces.
  Tensor lists;
  int64_t rows;

  // ids i32 [T] and cu_seqlens i32 [S + 1] on the cpu, T > 0. The lists lie on the cpu.
  static EmbeddingPlan of(const Tensor& ids, const Tensor& cu_seqlens);
  // Fills the rows and what belongs to them.
  void describe_to(EmbeddingBackwardArgs& args) const;
};

}  // namespace lathe::kernels
