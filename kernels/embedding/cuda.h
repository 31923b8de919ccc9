// The CUDA bodies of embedding.h. Pointers are device memory but for ids, which say where they are.
#pragma once

#include "core/device.h"
#include "kernels/arguments/indices.h"
#include "kernels/embedding/cpu.h"

namespace lathe::kernels {

struct EmbeddingForwardCuda {
  int64_t element_bytes;  // 2 or 4: rows are copied, whatever their dtype
  Matrix out;
  ConstMatrix weight;
  Indices ids;
  int64_t rows, columns, vocabulary;
};

template <DeviceKind>
void embedding_forward_rows(const EmbeddingForwardCuda& args);
template <DeviceKind>
void embedding_backward_rows(const EmbeddingBackwardArgs& args);

}  // namespace lathe::kernels
