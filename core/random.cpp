#include "core/random.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "core/error.h"

namespace lathe {

// In double, so that the float result does not depend on which libm computed it except in the rarest ties.
float normal_from_bits(uint32_t a, uint32_t b) {
  const double u = (static_cast<double>(a >> 8) + 1.0) * 0x1.0p-24;  // (0, 1]: the logarithm stays finite
  const double angle = 2.0 * std::numbers::pi * static_cast<double>(uniform_from_bits(b));
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(angle));
}

uint32_t RandomStream::next_u32() {
  if (used_ == 4) {
    block_ = random_bits(seed_, purpose_, step_, position_++);
    used_ = 0;
  }
  return block_[static_cast<size_t>(used_++)];
}

float RandomStream::normal() {
  const uint32_t a = next_u32();
  const uint32_t b = next_u32();
  return normal_from_bits(a, b);
}

uint64_t RandomStream::below(uint64_t n) {
  if (n == 0) throw Error("RandomStream::below(0): there is no number below zero");
  // The 2^64 mod n lowest draws are refused, so that each remainder keeps the same number of draws.
  const uint64_t refused = (std::numeric_limits<uint64_t>::max() - n + 1) % n;
  for (;;) {
    const uint64_t low = next_u32();
    const uint64_t draw = (uint64_t{next_u32()} << 32) | low;
    if (draw >= refused) return draw % n;
  }
}

}  // namespace lathe
