// The random number of a row. Internal to this folder.
#pragma once

#include "core/random.h"
#include "kernels/sampling/sampling.h"

namespace lathe::kernels {

// u in units of 2^-64, with 53 bits.
inline uint64_t draw_bits(const SamplingRow& row) {
  const PhiloxCounter bits = random_bits(row.params.seed, RandomPurpose::sampling, 0, row.position);
  return ((uint64_t{bits[0]} << 21) ^ (bits[1] >> 11)) << 11;
}

}  // namespace lathe::kernels
