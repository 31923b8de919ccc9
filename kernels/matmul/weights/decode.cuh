// What kernels over quantised weights are instantiated for: the formats of formats.h. Each has a struct in its folder's
// decode.cuh, made by device_codes(Format, args): a kernel's argument, with
//   bits                          of a code; the codes of a row of the weight lie one after another
//   Shared, fill(Shared&, thread, threads)   what decoding looks up, in shared memory, and how threads bring it there
//   RawScale, read_scale(row, k, columns), scale(raw, shared)
//   value(words, i, shared)       what code i of 32-bit words stands for, before the scale
//   Pairs(column, quarter)        of 32 codes in shared memory, of every eight two from 2 · quarter on;
//     at(eight, shared)           what those of one eight stand for
// Neighbours along k share a scale in blocks of 64 or a multiple.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/matmul/weights/int8/decode.cuh"
#include "kernels/matmul/weights/nf4/decode.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Calls body.operator()<T>(codes), T bf16 or f16.
template <class Body>
void with_codes(const QuantizedProductArgs& args, Body body) {
  with_format(args.format, [&]<class Format>() {
    const auto codes = device_codes(Format{}, args);
    args.product.dtype == DType::bf16 ? body.template operator()<bf16_t>(codes)
                                      : body.template operator()<f16_t>(codes);
  });
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
