#include "kernels/copy/reference.h"

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void copy(const Tensor& out, const Tensor& in) {
  for (int64_t flat = 0; flat < out.numel(); ++flat) {
    int64_t rest = flat, from = 0, to = 0;
    for (int d = out.rank() - 1; d >= 0; --d) {
      const int64_t index = rest % out.dim(d);
      rest /= out.dim(d);
      from += index * in.stride(d);
      to += index * out.stride(d);
    }
    write(out.dtype(), out.raw(), to, read(in.dtype(), in.raw(), from));
  }
}

}  // namespace lathe::kernels::reference
