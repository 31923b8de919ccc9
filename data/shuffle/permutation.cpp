#include "data/shuffle/permutation.h"

#include <algorithm>
#include <bit>

#include "core/random.h"

namespace lathe::data {
namespace {

constexpr int rounds = 6;
// A network over fewer bits has too few different permutations; walking out of 2^8 costs a tiny data set nothing.
constexpr int min_half_bits = 4;

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t seed, uint64_t epoch)
    : size_(size),
      seed_(seed),
      epoch_(epoch),
      half_bits_(std::max(min_half_bits, static_cast<int>(std::bit_width(size > 0 ? size - 1 : 0) + 1) / 2)) {}

uint64_t Permutation::operator()(uint64_t position) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = position >> half_bits_, right = position & mask;
    for (uint64_t round = 0; round < rounds; ++round) {
      // The counter's 48 bits of position hold the half (at most 32 bits) and the round.
      const PhiloxCounter bits = random_bits(seed_, RandomPurpose::shuffle, epoch_, right | (round << 40));
      const uint64_t mixed = left ^ ((uint64_t{bits[1]} << 32 | bits[0]) & mask);
      left = right;
      right = mixed;
    }
    position = (left << half_bits_) | right;
  } while (position >= size_);
  return position;
}

}  // namespace lathe::data
