#include "data/shuffle/row_sampler.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
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

RowSampler::RowSampler(int64_t rows, RowOrder order, uint64_t seed, SamplerState state)
    : rows_(rows), order_(order), seed_(seed), state_(state) {
  if (rows <= 0) throw ConfigError("dataset", "there is no row to train on");
  if (state.epoch < 0 || state.position < 0 || state.position >= rows) {
    throw ConfigError("resume", "the saved position " + std::to_string(state.position) + " is not in a data set of " +
                                    std::to_string(rows) + " rows: the data set has changed since");
  }
}

std::vector<int64_t> RowSampler::next(int64_t count) {
  const int64_t end = state_.position + std::min(count, rows_ - state_.position);
  const Permutation permutation(static_cast<uint64_t>(rows_), seed_, static_cast<uint64_t>(state_.epoch));
  std::vector<int64_t> indices;
  for (; state_.position < end; ++state_.position) {
    indices.push_back(order_ == RowOrder::as_given
                          ? state_.position
                          : static_cast<int64_t>(permutation(static_cast<uint64_t>(state_.position))));
  }
  if (state_.position == rows_) state_ = {state_.epoch + 1, 0};
  return indices;
}

}  // namespace lathe::data
