// Several processes that share an input: groups of 1000 rows, which are those that packing packs together, take turns.
#pragma once

#include <cstdint>

namespace lathe::data {

inline constexpr int64_t group_rows = 1000;

// The part-th of `parts`, from 1.
struct RowPart {
  int64_t part = 1, parts = 1;
  bool has(int64_t row) const { return row / group_rows % parts == part - 1; }  // rows are counted from 0
};

}  // namespace lathe::data
