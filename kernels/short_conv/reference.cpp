#include "kernels/short_conv/reference.h"

#include "kernels/reference/rows.h"

namespace lathe::kernels::reference {
namespace {

// One column of rows of B, C and x.
struct Column {
  const Tensor &bcx, &weight, &bias;
  int64_t i;

  int64_t taps() const { return weight.dim(1); }
  double tap(int64_t j) const { return at(weight, i * taps() + j); }
  double b(int64_t row) const { return at(bcx, row, i); }
  double c(int64_t row) const { return at(bcx, row, weight.dim(0) + i); }
  double x(int64_t row) const { return at(bcx, row, 2 * weight.dim(0) + i); }
  double product(int64_t row) const { return round_to(bcx.dtype(), b(row) * x(row)); }
  // product_before(k): p of the token that is k before.
  template <class ProductBefore>
  double convolved(int64_t tokens_before, const ProductBefore& product_before) const {
    double sum = bias.defined() ? at(bias, i) : 0.0;
    for (int64_t j = 0; j < taps(); ++j) {
      const int64_t before = taps() - 1 - j;
      if (before <= tokens_before) sum += tap(j) * product_before(before);
    }
    return round_to(bcx.dtype(), sum);
  }
  double convolved(int64_t row, int64_t first_row) const {
    return convolved(row - first_row, [&](int64_t before) { return product(row - before); });
  }
};

template <class Body>
void for_each_row(const Tensor& cu_seqlens, const Body& body) {
  const auto bounds = cu_seqlens.span<int32_t>();
  for (size_t s = 0; s + 1 < bounds.size(); ++s)
    for (int64_t row = bounds[s]; row < bounds[s + 1]; ++row) body(row, bounds[s], bounds[s + 1]);
}

}  // namespace

void short_conv_forward(const Tensor& out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                        const Tensor& cu_seqlens) {
  for_each_row(cu_seqlens, [&](int64_t row, int64_t first, int64_t) {
    for (int64_t i = 0; i < weight.dim(0); ++i) {
      const Column column{bcx, weight, bias, i};
      put(out, row, i, column.c(row) * column.convolved(row, first));
    }
  });
}

void short_conv_backward(const Tensor& grad_bcx, const Tensor& grad_weight, const Tensor& grad_bias,
                         const Tensor& grad_out, const Tensor& bcx, const Tensor& weight, const Tensor& bias,
                         const Tensor& cu_seqlens) {
  const int64_t hidden = weight.dim(0), taps = weight.dim(1);
  for_each_row(cu_seqlens, [&](int64_t row, int64_t first, int64_t end) {
    for (int64_t i = 0; i < hidden; ++i) {
      const Column column{bcx, weight, bias, i};
      const auto of_convolved = [&](int64_t t) { return at(grad_out, t, i) * column.c(t); };
      double of_product = 0;
      for (int64_t after = 0; after < taps && row + after < end; ++after)
        of_product += column.tap(taps - 1 - after) * of_convolved(row + after);
      put(grad_bcx, row, i, of_product * column.x(row));
      put(grad_bcx, row, hidden + i, at(grad_out, row, i) * column.convolved(row, first));
      put(grad_bcx, row, 2 * hidden + i, of_product * column.b(row));
      for (int64_t j = 0; grad_weight.defined() && j < taps; ++j)
        if (const int64_t from = row - (taps - 1) + j; from >= first)
          add(grad_weight, i * taps + j, of_convolved(row) * column.product(from));
      if (grad_bias.defined()) add(grad_bias, i, of_convolved(row));
    }
  });
}

void short_conv_paged(const Tensor& out, const Tensor& pages, const Tensor& bcx, const Tensor& weight,
                      const Tensor& bias, const PagedBatch& batch) {
  const auto slot = [&](int64_t page, int64_t offset) { return page * pages.stride(0) + offset * pages.stride(1); };
  const int64_t page_size = pages.dim(1);
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    for (int64_t row = batch.bounds()[s]; row < batch.bounds()[s + 1]; ++row) {
      const int64_t position = batch.context(s) - (batch.bounds()[s + 1] - row);
      for (int64_t i = 0; i < weight.dim(0); ++i) {
        const Column column{bcx, weight, bias, i};
        write(pages.dtype(), pages.raw(), slot(batch.page_of(row), batch.offset_of(row)) + i, column.product(row));
        const double convolved = column.convolved(position, [&](int64_t before) {
          const int64_t from = position - before;
          return at(pages, slot(batch.block_table(s)[from / page_size], from % page_size) + i);
        });
        put(out, row, i, column.c(row) * convolved);
      }
    }
  }
}

}  // namespace lathe::kernels::reference
