#include "kernels/matmul/bands.h"

#include <algorithm>

namespace lathe::kernels {
namespace {

constexpr int64_t whole_rows = 256;  // of a band: a multiple of every tile's

void dequantize(const Tensor& out, const Weight& weight, int64_t first_row) {
  if (const QuantizedWeight* codes = weight.quantized()) return codes->dequantize(out, first_row);
  weight.ggml()->dequantize(out, first_row);
}

// The terms of columns [begin, end) of out. On a device LoRA's operands are dense, packed or not.
LinearTerms terms_of(const LinearTerms& terms, int64_t begin, int64_t end) {
  const auto part = [&](const Tensor& all, int64_t axis) { return all.defined() ? all.slice(axis, begin, end) : all; };
  const auto rows = [&](const Weight& b) -> Weight {
    if (!b.defined()) return b;
    return part(b.packed() ? b.packed()->dense() : *b.dense(), 0);
  };
  LinearTerms result{.lora_t = terms.lora_t,
                     .lora_b = rows(terms.lora_b),
                     .bias = part(terms.bias, 0),
                     .residual = part(terms.residual, 1),
                     .lora_rows = terms.lora_rows};
  for (LoraRows& lora : result.lora_rows) lora.b = rows(lora.b);
  return result;
}

}  // namespace

int64_t rows_of_band(int64_t rows, int64_t row_bytes, int64_t band_bytes) {
  const auto whole = [](int64_t count) { return (count + whole_rows - 1) / whole_rows * whole_rows; };
  const int64_t most = std::max(whole_rows, band_bytes / row_bytes / whole_rows * whole_rows);
  const int64_t bands = (rows + most - 1) / most;
  return whole((rows + bands - 1) / bands);
}

void linear_forward_in_bands(const Tensor& out, const Tensor& x, const Weight& weight, const LinearTerms& terms,
                             int64_t band_bytes) {
  const int64_t rows = weight.rows(), columns = weight.columns();
  const int64_t band = std::min(rows, rows_of_band(rows, columns * size_of(x.dtype()), band_bytes));
  const Tensor room = Tensor::empty({band, columns}, x.dtype(), x.device(), MemoryTag::workspace);
  for (int64_t begin = 0; begin < rows; begin += band) {
    const int64_t end = std::min(rows, begin + band);
    const Tensor dense = room.slice(0, 0, end - begin);
    dequantize(dense, weight, begin);
    linear_forward(out.slice(1, begin, end), x, dense, terms_of(terms, begin, end));
  }
}

}  // namespace lathe::kernels
