#include "kernels/add/reference.h"

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void add(const Tensor& out, const Tensor& a, const Tensor& b, double scale) {
  for (int64_t i = 0; i < out.numel(); ++i) {
    write(out.dtype(), out.raw(), i, read(a.dtype(), a.raw(), i) + scale * read(b.dtype(), b.raw(), i));
  }
}

void scale(const Tensor& out, const Tensor& a, double scale) {
  for (int64_t i = 0; i < out.numel(); ++i) write(out.dtype(), out.raw(), i, scale * read(a.dtype(), a.raw(), i));
}

void scale_rows(const Tensor& out, const Tensor& a, const Tensor& scales) {
  for (int64_t t = 0; t < scales.numel(); ++t)
    scale(out.select(0, t), a.select(0, t), read(scales.dtype(), scales.raw(), t));
}

}  // namespace lathe::kernels::reference
