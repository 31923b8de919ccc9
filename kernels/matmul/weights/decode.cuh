// The block formats that kernels over quantised weights are instantiated for: the list for device code. A format is a
// struct in its folder's decode.cuh, a kernel's argument, with
//   bits                          of a code; the codes of a row of the weight lie one after another
//   Shared, fill(Shared&)         what decoding looks up, in shared memory, and how a block brings it there
//   RawScale, read_scale(row, k, columns), scale(raw, shared)
//   value(words, i, shared)       what code i of 32-bit words stands for, before the scale
// Neighbours along k share a scale in blocks of 64 or a multiple.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/matmul/weights/int8/decode.cuh"
#include "kernels/matmul/weights/nf4/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Calls body.operator()<T>(codes), T bf16 or f16.
template <class Body>
void with_codes(const QuantizedProductCuda& args, Body body) {
  const auto with_format = [&]<class T>(T) {
    switch (args.format) {
      case QuantizedFormat::nf4: return body.template operator()<T>(Nf4Codes(args));
      case QuantizedFormat::int8: return body.template operator()<T>(Int8Codes(args));
    }
  };
  args.product.dtype == DType::bf16 ? with_format(bf16_t{}) : with_format(f16_t{});
}

// Codes, at a multiple of 8 bytes (two words) or 16.
template <int count>
__device__ __forceinline__ void load_words(uint32_t (&words)[count], const uint8_t* from) {
  if constexpr (count == 2) {
    const uint2 two = load_vector<uint2>(from);
    words[0] = two.x, words[1] = two.y;
  } else {
    LATHE_UNROLL
    for (int i = 0; i < count; i += 4) {
      const uint4 four = load_vector<uint4>(from + 4 * i);
      words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
    }
  }
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
