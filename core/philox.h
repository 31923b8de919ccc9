// The constants of Philox 4×32-10, which core/random.h, vectors of a CPU (kernels/simd/philox.h) and kernels
// (kernels/cuda/philox.h) run in the words they have.
#pragma once

#include <cstdint>

namespace lathe {

struct Philox {
  static constexpr int rounds = 10;
  static constexpr uint32_t multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
  static constexpr uint32_t increment[2] = {0x9E3779B9u, 0xBB67AE85u};  // of the key, after each round
};

}  // namespace lathe
