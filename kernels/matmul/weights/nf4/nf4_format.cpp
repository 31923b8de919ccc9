#include "kernels/matmul/weights/nf4/nf4_format.h"

#include "kernels/matmul/cuda/quantized.h"
#include "kernels/nf4/codebook.h"
#include "kernels/nf4/scale.h"

namespace lathe::kernels {

void Nf4Format::put(uint8_t* codes, int64_t group, int64_t row, int64_t k, uint8_t code) {
  const Place at = place(group, row, k);
  codes[at.byte] = static_cast<uint8_t>(codes[at.byte] | code << at.shift);
}

float Nf4Format::value(const uint8_t* codes, int64_t group, int64_t row, int64_t k) {
  const Place at = place(group, row, k);
  return nf4_codebook.values[codes[at.byte] >> at.shift & 15];
}

void Nf4Format::set_codes(QuantizedProductArgs& args, const Nf4Weight& weight) {
  args.format = QuantizedFormat::nf4;
  args.codes = weight.codes.raw();
  args.nf4_scales = nf4_scale_args(weight);
  args.block_size = weight.block_size;
}

Nf4Format::Reader::Reader(const Nf4Weight& weight)
    : codes_(weight.codes.data<uint8_t>()),
      columns_(weight.columns),
      block_size_(weight.block_size),
      scales_(static_cast<size_t>(weight.blocks())) {
  nf4_expand_scales(weight, scales_.data());
}

}  // namespace lathe::kernels
