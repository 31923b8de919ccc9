#include "kernels/matmul/weights/int8/int8_format.h"

#include "kernels/matmul/cuda/quantized.h"

namespace lathe::kernels {

void Int8Format::set_codes(QuantizedProductArgs& args, const Int8Weight& weight) {
  args.format = QuantizedFormat::int8;
  args.codes = weight.codes.raw();
  args.int8_scales = weight.scales.data<float>();
}

}  // namespace lathe::kernels
