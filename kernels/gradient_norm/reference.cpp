#include "kernels/gradient_norm/reference.h"

#include <algorithm>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

double sum_of_squares(const Tensor& x) {
  double total = 0;
  for (int64_t block = 0; block < x.numel(); block += 4096) {
    double sums[16] = {};
    for (int64_t i = block; i < std::min(block + 4096, x.numel()); ++i) {
      const double value = read(x.dtype(), x.raw(), i);
      sums[i % 16] += value * value;
    }
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
    }
    total += sums[0];
  }
  return total;
}

}  // namespace lathe::kernels::reference
