// The order in which rows are trained on: a fresh permutation for each epoch, computed row by row. Nothing is
// buffered, so that the whole state is (epoch, position) and resuming loses no row and repeats none.
#pragma once

#include <cstdint>
#include <vector>

namespace lathe::data {

// A keyed permutation of [0, size): a Feistel network on Philox, walked until the result is in range
// (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t seed, uint64_t epoch);
  uint64_t operator()(uint64_t position) const;  // position < size

 private:
  uint64_t size_, seed_, epoch_;
  int half_bits_;
};

struct SamplerState {
  int64_t epoch = 0;
  int64_t position = 0;  // rows of the epoch already given
  bool operator==(const SamplerState&) const = default;
};

enum class RowOrder { shuffled, as_given };

class RowSampler {
 public:
  RowSampler(int64_t rows, RowOrder order, uint64_t seed, SamplerState state = {});

  // The next rows, `count` of them or what is left of the epoch. Then the next epoch begins.
  std::vector<int64_t> next(int64_t count);
  SamplerState state() const { return state_; }

 private:
  int64_t rows_;
  RowOrder order_;
  uint64_t seed_;
  SamplerState state_;
};

}  // namespace lathe::data
