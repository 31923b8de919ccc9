// Sequences of packed rows taken as many at a time as a workspace may have.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lathe::kernels {

// Sequences [first, end), which have rows [begin_row, end_row): their bounds, the first of them 0.
struct SequenceGroup {
  int64_t begin_row, end_row;
  std::vector<int32_t> bounds;
  int64_t sequences() const { return static_cast<int64_t>(bounds.size()) - 1; }
  int64_t rows() const { return end_row - begin_row; }
};

// body(group) for groups of one sequence at least, of which bytes(sequences, rows) are `most_bytes` at most.
template <class Bytes, class Body>
void for_each_sequence_group(std::span<const int32_t> bounds, int64_t most_bytes, const Bytes& bytes,
                             const Body& body) {
  for (size_t first = 0, end = 0; first + 1 < bounds.size(); first = end) {
    const auto fits = [&](size_t last) {
      return bytes(static_cast<int64_t>(last - first), int64_t{bounds[last]} - bounds[first]) <= most_bytes;
    };
    end = first + 1;
    while (end + 1 < bounds.size() && fits(end + 1)) ++end;
    SequenceGroup group{bounds[first], bounds[end], {}};
    for (size_t s = first; s <= end; ++s) group.bounds.push_back(bounds[s] - bounds[first]);
    body(group);
  }
}

}  // namespace lathe::kernels
