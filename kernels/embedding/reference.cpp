#include "kernels/embedding/reference.h"

#include <map>
#include <vector>

#include "kernels/reference/element.h"

namespace lathe::kernels::reference {

void embedding_forward(const Tensor& out, const Tensor& weight, const Tensor& ids) {
  for (int64_t t = 0; t < ids.numel(); ++t) {
    const int64_t id = ids.data<int32_t>()[t];
    for (int64_t i = 0; i < weight.dim(1); ++i) {
      write(out.dtype(), out.raw(), t * out.stride(0) + i,
            read(weight.dtype(), weight.raw(), id * weight.stride(0) + i));
    }
  }
}

void embedding_backward(const Tensor& grad_weight, const Tensor& grad_out, const Tensor& ids,
                        const Tensor& cu_seqlens) {
  const int64_t columns = grad_weight.dim(1);
  const auto ends = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < ends.size(); ++s) {
    std::map<int32_t, std::vector<double>> sums;
    for (int64_t t = ends[s]; t < ends[s + 1]; ++t) {
      auto& sum = sums[ids.data<int32_t>()[t]];
      sum.resize(static_cast<size_t>(columns));
      for (int64_t i = 0; i < columns; ++i) {
        sum[static_cast<size_t>(i)] += read(grad_out.dtype(), grad_out.raw(), t * grad_out.stride(0) + i);
      }
    }
    for (const auto& [id, sum] : sums) {
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t at = id * grad_weight.stride(0) + i;
        const double before = read(grad_weight.dtype(), grad_weight.raw(), at);
        write(grad_weight.dtype(), grad_weight.raw(), at, before + sum[static_cast<size_t>(i)]);
      }
    }
  }
}

}  // namespace lathe::kernels::reference
