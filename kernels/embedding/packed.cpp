// The rows of a weight in panels: a tied output embedding is stored once, as the product reads it.
#include <algorithm>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/arguments/indices.h"
#include "kernels/checks/expect.h"
#include "kernels/embedding/embedding.h"
#include "kernels/matmul/weights/ggml/device.h"
#include "kernels/reference/element.h"

namespace lathe::kernels {

void embedding_forward(const Tensor& out, const PackedWeight& weight, const Tensor& ids) {
  const char* operation = "embedding_forward";
  expect(operation, "weight", weight.panels());
  if (weight.device().kind != DeviceKind::cpu) return embedding_forward(out, weight.dense(), ids);
  expect(operation, "ids", ids).rank(1);
  const int32_t* id = expect_indices(operation, "ids", ids, ids.dim(0), "weight", weight.rows(), {}).data;
  expect(operation, "out", out).shape({ids.dim(0), weight.columns()}).dtype(weight.dtype()).rows_contiguous();
  const int64_t columns = weight.columns();
  if (columns == 0) return;
  parallel_for(ids.dim(0), std::max<int64_t>(1, 4096 / columns), [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t t = begin; t < end; ++t) {
      weight.unpack_rows(id[t], 1, row.data());
      // What was packed in this dtype comes back exactly, so that nothing is rounded here.
      for (int64_t i = 0; i < columns; ++i) {
        reference::write(out.dtype(), out.raw(), t * out.stride(0) + i, row[static_cast<size_t>(i)]);
      }
    }
  });
}

void embedding_forward(const Tensor& out, const GgmlWeight& weight, const Tensor& ids) {
  const char* operation = "embedding_forward";
  expect(operation, "weight", weight.panels());
  expect(operation, "ids", ids).rank(1);
  const Indices indices = expect_indices(operation, "ids", ids, ids.dim(0), "weight", weight.rows(), weight.device());
  expect(operation, "out", out)
      .shape({ids.dim(0), weight.columns()})
      .dtype(weight.dtype())
      .rows_contiguous()
      .device(weight.device());
  if (weight.device().kind != DeviceKind::cpu) return device::ggml_rows_of(out, weight, &indices);
  const int32_t* id = indices.data;
  parallel_for(ids.dim(0), std::max<int64_t>(1, 4096 / weight.columns()), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) weight.dequantize(out.slice(0, t, t + 1), id[t]);
  });
}

}  // namespace lathe::kernels
