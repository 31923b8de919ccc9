#include "kernels/rope/reference.h"

namespace lathe::kernels::reference {

void rope(const Tensor& out, const Tensor& x, const Tensor& positions, const Tensor& cos_table, const Tensor& sin_table,
          RopeDirection direction) {
  const int64_t half = x.dim(2) / 2;
  const double sign = direction == RopeDirection::forward ? 1 : -1;
  for (int64_t token = 0; token < x.dim(0); ++token) {
    const int64_t position = positions.data<int32_t>()[token];
    const double* cosine = cos_table.data<double>() + position * cos_table.stride(0);
    const double* sine = sin_table.data<double>() + position * sin_table.stride(0);
    for (int64_t head = 0; head < x.dim(1); ++head) {
      const double* from = x.data<double>() + token * x.stride(0) + head * x.stride(1);
      double* to = out.data<double>() + token * out.stride(0) + head * out.stride(1);
      for (int64_t d = 0; d < half; ++d) {
        const double lower = from[d], upper = from[d + half];
        to[d] = lower * cosine[d] - upper * sign * sine[d];
        to[d + half] = upper * cosine[d] + lower * sign * sine[d];
      }
    }
  }
}

}  // namespace lathe::kernels::reference
