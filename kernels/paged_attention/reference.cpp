#include "kernels/paged_attention/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/reference.h"
#include "kernels/reference/element.h"

namespace lathe::kernels::reference {
namespace {

// Where a row of one kv head lies, in elements of the pages and of the scales.
struct RowPlace {
  int64_t element, scale;
};

RowPlace place(const Tensor& pages, const Tensor& scales, int64_t page, int64_t head, int64_t offset) {
  return {page * pages.stride(0) + head * pages.stride(1) + offset * pages.stride(2),
          scales.defined() ? page * scales.stride(0) + head * scales.stride(1) + offset : 0};
}

void read_row(const Tensor& pages, const Tensor& scales, RowPlace from, double* out) {
  for (int64_t d = 0; d < pages.dim(3); ++d) {
    out[d] = pages.dtype() == DType::i8
                 ? pages.data<int8_t>()[from.element + d] * read(scales.dtype(), scales.raw(), from.scale)
                 : read(pages.dtype(), pages.raw(), from.element + d);
  }
}

// The keys (or values) of one sequence and kv head as f64 rows.
std::vector<double> rows_of(const Tensor& pages, const Tensor& scales, const int32_t* table, int64_t head,
                            int64_t length) {
  std::vector<double> rows(static_cast<size_t>(length * pages.dim(3)));
  for (int64_t j = 0; j < length; ++j)
    read_row(pages, scales, place(pages, scales, table[j / pages.dim(2)], head, j % pages.dim(2)),
             rows.data() + j * pages.dim(3));
  return rows;
}

// In f32, as the header says: what is rounded to integers must not depend on the precision around it.
void quantise_row(const Tensor& pages, const Tensor& scales, RowPlace to, const double* x) {
  float most = 0;
  for (int64_t d = 0; d < pages.dim(3); ++d) most = std::max(most, std::abs(static_cast<float>(x[d])));
  const bool is_zero = most < 0x1p-100f;
  write(scales.dtype(), scales.raw(), to.scale, is_zero ? 0.0f : most / 127.0f);
  const float factor = is_zero ? 0.0f : 127.0f / most;
  for (int64_t d = 0; d < pages.dim(3); ++d)
    pages.data<int8_t>()[to.element + d] = static_cast<int8_t>(std::nearbyint(static_cast<float>(x[d]) * factor));
}

void append(const Tensor& pages, const Tensor& scales, const Tensor& x, const PagedBatch& batch) {
  for (int64_t token = 0; token < batch.tokens(); ++token) {
    for (int64_t head = 0; head < x.dim(1); ++head) {
      const double* row = x.data<double>() + token * x.stride(0) + head * x.stride(1);
      const RowPlace to = place(pages, scales, batch.page_of(token), head, batch.offset_of(token));
      if (pages.dtype() == DType::i8) {
        quantise_row(pages, scales, to, row);
      } else {
        for (int64_t d = 0; d < x.dim(2); ++d) write(pages.dtype(), pages.raw(), to.element + d, row[d]);
      }
    }
  }
}

}  // namespace

void paged_attention(const Tensor& out, const Tensor& q, const KvPages& pages, const PagedBatch& batch,
                     const AttentionParams& params, const Tensor& lse) {
  const int64_t kv_heads = pages.k.dim(1), group = q.dim(1) / kv_heads, head_dim = q.dim(2);
  parallel_for(batch.sequences() * kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i / kv_heads, kv_head = i % kv_heads, length = batch.context(s);
      const std::vector<double> keys = rows_of(pages.k, pages.k_scales, batch.block_table(s), kv_head, length);
      const std::vector<double> values = rows_of(pages.v, pages.v_scales, batch.block_table(s), kv_head, length);
      std::vector<double> scores(static_cast<size_t>(length));
      auto key = [&](int64_t j) -> const double* { return keys.data() + j * head_dim; };
      auto value = [&](int64_t j) -> const double* { return values.data() + j * head_dim; };
      for (int64_t token = batch.bounds()[s]; token < batch.bounds()[s + 1]; ++token) {
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          const double row_lse =
              attend_row(q.data<double>() + token * q.stride(0) + head * q.stride(1),
                         length - (batch.bounds()[s + 1] - token), head_dim, params, key, value, scores.data(),
                         out.data<double>() + token * out.stride(0) + head * out.stride(1));
          if (lse.defined()) lse.data<double>()[head * lse.stride(0) + token] = row_lse;
        }
      }
    }
  });
}

void kv_append(const KvPages& pages, const Tensor& k, const Tensor& v, const PagedBatch& batch) {
  append(pages.k, pages.k_scales, k, batch);
  append(pages.v, pages.v_scales, v, batch);
}

}  // namespace lathe::kernels::reference
