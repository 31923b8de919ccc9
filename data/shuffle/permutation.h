// A fresh order of rows for each epoch, computed row by row: nothing is buffered, so that the shuffle is global and its
// whole state is (epoch, position).
#pragma once

#include <cstdint>

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

}  // namespace lathe::data
