// Philox 4×32-10 (core/random.h) in a kernel.
#pragma once

#include "core/philox.h"
#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

struct PhiloxWords {
  uint32_t at[4];
};

__device__ __forceinline__ PhiloxWords philox_round(const PhiloxWords& counter, uint32_t key0, uint32_t key1) {
  const uint64_t product0 = uint64_t{Philox::multiplier[0]} * counter.at[0];
  const uint64_t product2 = uint64_t{Philox::multiplier[1]} * counter.at[2];
  return {{static_cast<uint32_t>(product2 >> 32) ^ counter.at[1] ^ key0, static_cast<uint32_t>(product2),
           static_cast<uint32_t>(product0 >> 32) ^ counter.at[3] ^ key1, static_cast<uint32_t>(product0)}};
}

__device__ __forceinline__ PhiloxWords philox4x32_10(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  LATHE_UNROLL
  for (int round = 0; round < Philox::rounds; ++round) {
    counter = philox_round(counter, key0, key1);
    key0 += Philox::increment[0];
    key1 += Philox::increment[1];
  }
  return counter;
}

// The keys of all rounds, for kernels that draw many numbers by one key: as arguments they are operands of the rounds'
// instructions, where sums of increments take an instruction or a register each.
struct PhiloxKeys {
  uint32_t at[Philox::rounds][2];
};
inline PhiloxKeys philox_keys(uint32_t key0, uint32_t key1) {
  PhiloxKeys keys;
  for (uint32_t round = 0; round < Philox::rounds; ++round) {
    keys.at[round][0] = key0 + round * Philox::increment[0];
    keys.at[round][1] = key1 + round * Philox::increment[1];
  }
  return keys;
}
__device__ __forceinline__ PhiloxWords philox4x32_10(PhiloxWords counter, const PhiloxKeys& keys) {
  LATHE_UNROLL
  for (int round = 0; round < Philox::rounds; ++round)
    counter = philox_round(counter, keys.at[round][0], keys.at[round][1]);
  return counter;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
