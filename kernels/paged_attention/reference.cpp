#include "kernels/paged_attention/reference.h"

#include <vector>

#include "kernels/attention/reference.h"

namespace lathe::kernels::reference {

void paged_attention(const Tensor& out, const Tensor& q, const Tensor& k_pages, const Tensor& v_pages,
                     const Tensor& block_table, const Tensor& cu_seqlens, const Tensor& context_lens,
                     const AttentionParams& params) {
  const int64_t heads = q.dim(1), group = heads / k_pages.dim(1), page_size = k_pages.dim(2), head_dim = q.dim(2);
  const auto bounds = cu_seqlens.span<int32_t>();
  const auto lengths = context_lens.span<int32_t>();
  parallel_for(static_cast<int64_t>(lengths.size()) * heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> scores;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i / heads, head = i % heads;
      const int32_t* pages = block_table.data<int32_t>() + s * block_table.stride(0);
      const auto row = [&](const Tensor& x, int64_t j) {
        return x.data<double>() + pages[j / page_size] * x.stride(0) + head / group * x.stride(1) +
               j % page_size * x.stride(2);
      };
      auto key = [&](int64_t j) -> const double* { return row(k_pages, j); };
      auto value = [&](int64_t j) -> const double* { return row(v_pages, j); };
      scores.resize(static_cast<size_t>(lengths[s]));
      for (int64_t token = bounds[s]; token < bounds[s + 1]; ++token) {
        attend_row(q.data<double>() + token * q.stride(0) + head * q.stride(1), lengths[s] - (bounds[s + 1] - token),
                   head_dim, params, key, value, scores.data(),
                   out.data<double>() + token * out.stride(0) + head * out.stride(1));
      }
    }
  });
}

}  // namespace lathe::kernels::reference
