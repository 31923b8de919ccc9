// The CUDA bodies of embedding.h. Pointers are device memory but for ids, which say where they are.
#pragma once

#include "kernels/arguments/indices.h"
#include "kernels/cuda/dispatch.h"
#include "kernels/embedding/cpu.h"

namespace lathe::kernels {

struct EmbeddingForwardCuda {
  int64_t element_bytes;  // 2 or 4: rows are copied, whatever their dtype
  Matrix out;
  ConstMatrix weight;
  Indices ids;
  int64_t rows, columns, vocabulary;
};

}  // namespace lathe::kernels

LATHE_CUDA_BODY(embedding_forward_rows, EmbeddingForwardCuda)
LATHE_CUDA_BODY(embedding_backward_rows, EmbeddingBackwardArgs)
