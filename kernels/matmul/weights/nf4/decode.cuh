// nf4 in device code: how products (cuda/quantized.cu, cuda/quantized_gemv.cu) read codes that lie as bitsandbytes
// stores them.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/matmul/cuda/quantized.h"
#include "kernels/nf4/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// A kernel's argument.
struct Nf4Codes : Nf4Place {
  static constexpr int bits = 4;   // of a code
  using Shared = Nf4SharedTables;  // of a block
  using Place = Nf4Place;

  int block_bits;
  Nf4Tables tables;

  explicit Nf4Codes(const QuantizedProductArgs& args)
      : Nf4Place{static_cast<const uint8_t*>(args.codes), args.nf4_scales},
        block_bits(nf4_block_bits(args.block_size)),
        tables(nf4_tables(args.nf4_scales)) {}

  // Called by so many threads; a barrier must follow.
  __device__ __forceinline__ void fill(Shared& shared, int thread, int threads) const {
    fill_tables(shared, tables, thread, threads);
  }

  using RawScale = Nf4RawScale;
  // Of the block of element (row, k) of the weight at a place, which has so many columns.
  __device__ __forceinline__ RawScale read_scale(const Place& from, int64_t row, int64_t k, int64_t columns) const {
    return nf4_read_scale(from.scales, (row * columns + k) >> block_bits);
  }
  __device__ __forceinline__ RawScale read_scale(int64_t row, int64_t k, int64_t columns) const {
    return read_scale(*this, row, k, columns);
  }
  static __device__ __forceinline__ float scale(const Place& from, RawScale raw, const Shared& shared) {
    return nf4_scale(from.scales, shared.map, raw);
  }
  __device__ __forceinline__ float scale(RawScale raw, const Shared& shared) const { return scale(*this, raw, shared); }

  // What code i of these words stands for, before the scale: the first of two has the high half of their byte.
  template <int count>
  static __device__ __forceinline__ float value(const uint32_t (&words)[count], int i, const Shared& shared) {
    return shared.values[words[i / 8] >> (i % 8 / 2 * 8 + (i % 2 == 0 ? 4 : 0)) & 15u];
  }

  class Pairs {
   public:
    __device__ __forceinline__ Pairs(const uint8_t* column, int quarter) : shift_(8 * quarter) {
      const uint4 four = load_vector<uint4>(column);
      words_[0] = four.x, words_[1] = four.y, words_[2] = four.z, words_[3] = four.w;
    }
    __device__ __forceinline__ float2 at(int eight, const Shared& shared) const {
      const uint32_t both = words_[eight] >> shift_;
      return {shared.values[both >> 4 & 15u], shared.values[both & 15u]};
    }

   private:
    uint32_t words_[4];
    int shift_;
  };
};

inline Nf4Codes device_codes(Nf4Format, const QuantizedProductArgs& args) { return Nf4Codes(args); }

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
