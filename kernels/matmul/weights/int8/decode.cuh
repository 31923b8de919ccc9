// int8 blocks in device code: how products (cuda/quantized.cu, cuda/quantized_gemv.cu) read their codes.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/matmul/cuda/quantized.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// A kernel's argument.
struct Int8Codes : Int8Place {
  static constexpr int bits = 8;
  struct Shared {};  // nothing is looked up
  using Place = Int8Place;

  explicit Int8Codes(const QuantizedProductArgs& args)
      : Int8Place{static_cast<const uint8_t*>(args.codes), args.int8_scales} {}

  __device__ __forceinline__ void fill(Shared&, int, int) const {}

  struct RawScale {
    float value = 0.0f;
  };
  static __device__ __forceinline__ RawScale read_scale(const Place& from, int64_t row, int64_t k, int64_t columns) {
    return {from.scales[row * (columns / 64) + k / 64]};
  }
  __device__ __forceinline__ RawScale read_scale(int64_t row, int64_t k, int64_t columns) const {
    return read_scale(*this, row, k, columns);
  }
  static __device__ __forceinline__ float scale(const Place&, RawScale raw, const Shared&) { return raw.value; }
  __device__ __forceinline__ float scale(RawScale raw, const Shared&) const { return raw.value; }

  template <int count>
  static __device__ __forceinline__ float value(const uint32_t (&words)[count], int i, const Shared&) {
    return static_cast<float>(static_cast<int8_t>(words[i / 4] >> (i % 4 * 8) & 255u));
  }

  class Pairs {
   public:
    __device__ __forceinline__ Pairs(const uint8_t* column, int quarter) {
      LATHE_UNROLL
      for (int i = 0; i < 4; ++i) pairs_[i] = load_vector<uint16_t>(column + 8 * i + 2 * quarter);
    }
    __device__ __forceinline__ float2 at(int eight, const Shared&) const {
      return {of_byte(pairs_[eight] & 255u), of_byte(pairs_[eight] >> 8)};
    }

   private:
    // In the mantissa of 2^23 + 128: a conversion would take a quarter of the multiprocessor's arithmetic.
    static __device__ __forceinline__ float of_byte(uint32_t byte) {
      return __uint_as_float(0x4b000000u | (byte ^ 0x80u)) - 8388736.0f;
    }
    uint32_t pairs_[4];
  };
};

inline Int8Codes device_codes(Int8Format, const QuantizedProductArgs& args) { return Int8Codes(args); }

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
