// Counter-based random numbers: Philox 4×32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
// A number is a pure function of (seed, purpose, step, position): the same on every device, in any batch, after
// any resume.
#pragma once

#include <array>
#include <cstdint>

#include "core/philox.h"

namespace lathe {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter philox4x32_10(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < Philox::rounds; ++round) {
    const uint64_t product0 = uint64_t{Philox::multiplier[0]} * counter[0];
    const uint64_t product1 = uint64_t{Philox::multiplier[1]} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += Philox::increment[0];
    key[1] += Philox::increment[1];
  }
  return counter;
}

// What a stream of numbers is for: two purposes never share numbers.
enum class RandomPurpose : uint32_t { init = 1, dropout = 2, sampling = 3, shuffle = 4, dataset = 5, test = 6 };

// What is counted: (step, position) of a purpose; both are up to 2^48.
constexpr PhiloxCounter philox_counter(RandomPurpose purpose, uint64_t step, uint64_t position) {
  return {static_cast<uint32_t>(position),
          static_cast<uint32_t>((position >> 32) & 0xffffu) | (static_cast<uint32_t>(step >> 32) << 16),
          static_cast<uint32_t>(step), static_cast<uint32_t>(purpose)};
}
constexpr PhiloxKey philox_key(uint64_t seed) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
}

// The four numbers at (step, position) of a purpose.
constexpr PhiloxCounter random_bits(uint64_t seed, RandomPurpose purpose, uint64_t step, uint64_t position) {
  return philox4x32_10(philox_counter(purpose, step, position), philox_key(seed));
}

// [0, 1) with 24 bits, and a standard normal from two words (Box–Muller).
constexpr float uniform_from_bits(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1.0p-24f; }
float normal_from_bits(uint32_t a, uint32_t b);

// A sequential reader over random_bits, for host code that draws many numbers.
class RandomStream {
 public:
  RandomStream(uint64_t seed, RandomPurpose purpose, uint64_t step = 0) : seed_(seed), purpose_(purpose), step_(step) {}
  uint32_t next_u32();
  float uniform() { return uniform_from_bits(next_u32()); }
  float normal();
  uint64_t below(uint64_t n);  // [0, n), unbiased
 private:
  uint64_t seed_;
  RandomPurpose purpose_;
  uint64_t step_;
  uint64_t position_ = 0;
  PhiloxCounter block_{};
  int used_ = 4;
};

}  // namespace lathe
