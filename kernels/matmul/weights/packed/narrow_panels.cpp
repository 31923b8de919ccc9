#include "kernels/matmul/weights/packed/narrow_panels.h"

#include <cstring>

#include "core/error.h"
#include "kernels/matmul/weights/packed/packed_weight.h"
#include "kernels/matmul/weights/panels.h"

namespace lathe::kernels {

bool packs_narrow(const Tensor& matrix) {
  return matrix.rank() == 2 && matrix.device().kind == DeviceKind::cpu &&
         (matrix.dtype() == DType::f32 || (matrix.dtype() == DType::bf16 && matrix.dim(1) % 2 == 0));
}

NarrowPanels pack_narrow(const Tensor& matrix, MemoryTag tag) {
  if (!packs_narrow(matrix))
    throw ShapeError("pack_narrow: expected f32 [N, K] on the cpu, or bf16 with an even K, found " + describe(matrix));
  // Through the wide panels, of which each row of words is cut in two.
  const PackedWeight wide = pack_weight(matrix, matrix.dtype(), MemoryTag::workspace);
  constexpr int64_t parts = gemm::panel_width / gemm::narrow_width;
  NarrowPanels narrow;
  narrow.rows_ = matrix.dim(0), narrow.columns_ = matrix.dim(1);
  const int64_t panels = (narrow.rows_ + gemm::narrow_width - 1) / gemm::narrow_width;
  narrow.panels_ = Tensor::empty({panels, narrow.columns_ * gemm::narrow_width}, matrix.dtype(), {}, tag);
  constexpr int64_t row_bytes = gemm::narrow_width * 4;
  const int64_t panel_bytes = narrow.columns_ * gemm::narrow_width * size_of(matrix.dtype());
  const auto* const from = static_cast<const char*>(wide.panels().raw());
  auto* to = static_cast<char*>(narrow.panels_.raw());
  for (int64_t panel = 0; panel < panels; ++panel, to += panel_bytes) {
    const char* const row = from + panel / parts * parts * panel_bytes + panel % parts * row_bytes;
    for (int64_t step = 0; step < panel_bytes / row_bytes; ++step)
      std::memcpy(to + step * row_bytes, row + step * parts * row_bytes, row_bytes);
  }
  return narrow;
}

}  // namespace lathe::kernels
