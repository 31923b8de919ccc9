// The types that kernels over quantised weights are instantiated for: two dtypes, two formats.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/matmul/cuda/quantized.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Calls body.operator()<T, format>().
template <class Body>
void with_quantized_types(const QuantizedProductCuda& args, Body body) {
  const auto with_format = [&]<class T>(T) {
    args.format == QuantizedFormat::nf4 ? body.template operator()<T, QuantizedFormat::nf4>()
                                        : body.template operator()<T, QuantizedFormat::int8>();
  };
  args.product.dtype == DType::bf16 ? with_format(bf16_t{}) : with_format(f16_t{});
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
