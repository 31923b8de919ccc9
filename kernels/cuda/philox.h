// Philox 4×32-10 (core/random.h) in a kernel.
#pragma once

#include "core/philox.h"
#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

struct PhiloxWords {
  uint32_t at[4];
};

__device__ __forceinline__ PhiloxWords philox4x32_10(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  LATHE_UNROLL
  for (int round = 0; round < Philox::rounds; ++round) {
    const uint64_t product0 = uint64_t{Philox::multiplier[0]} * counter.at[0];
    const uint64_t product2 = uint64_t{Philox::multiplier[1]} * counter.at[2];
    counter = {{static_cast<uint32_t>(product2 >> 32) ^ counter.at[1] ^ key0, static_cast<uint32_t>(product2),
                static_cast<uint32_t>(product0 >> 32) ^ counter.at[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += Philox::increment[0];
    key1 += Philox::increment[1];
  }
  return counter;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
