// Which tokens add to which row of an embedding's gradient, and in which order.
#pragma once

#include "core/tensor.h"
#include "kernels/embedding/cpu.h"

namespace lathe::kernels {

class EmbeddingPlan {
 public:
  // ids i32 [T] and cu_seqlens i32 [S + 1] on the cpu, T > 0. The plan lies on `device`.
  EmbeddingPlan(const Tensor& ids, const Tensor& cu_seqlens, Device device);

  int64_t rows() const { return rows_; }
  // Fills the rows and what belongs to them.
  void describe_to(EmbeddingBackwardArgs& args) const;

 private:
  int64_t rows_ = 0, pieces_ = 0;
  Tensor lists_;  // i32: row_id, row_piece, piece_start, order, so that they go to a device in one copy
};

}  // namespace lathe::kernels
