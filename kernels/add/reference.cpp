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

}  // namespace lathe::kernels::reference
