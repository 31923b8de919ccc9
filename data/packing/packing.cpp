#include "data/packing/packing.h"

#include <algorithm>
#include <deque>
#include <map>

#include "core/error.h"

namespace lathe::data {
namespace {

using Packed = std::vector<std::vector<PackedPiece>>;

// Longest first, each into the fullest sequence that it still fits; among equally full ones the one that has been that
// full for longest.
void pack_best_fit(std::vector<PackedPiece> pieces, int64_t max_length, Packed& packed) {
  const auto length = [](const PackedPiece& piece) { return piece.end - piece.begin; };
  std::stable_sort(pieces.begin(), pieces.end(),
                   [&](const PackedPiece& a, const PackedPiece& b) { return length(a) > length(b); });
  std::map<int64_t, std::deque<size_t>> with_space;  // sequences by the tokens that still fit
  for (const PackedPiece& piece : pieces) {
    int64_t space = max_length;
    size_t sequence = packed.size();
    if (const auto best = with_space.lower_bound(length(piece)); best != with_space.end()) {
      space = best->first;
      sequence = best->second.front();
      best->second.pop_front();
      if (best->second.empty()) with_space.erase(best);
    } else {
      packed.emplace_back();
    }
    packed[sequence].push_back(piece);
    if (space > length(piece)) with_space[space - length(piece)].push_back(sequence);
  }
}

void pack_wrapped(std::span<const int64_t> lengths, int64_t first_row, int64_t max_length, Packed& packed) {
  int64_t space = 0;
  for (size_t row = 0; row < lengths.size(); ++row) {
    for (int64_t begin = 0; begin < lengths[row];) {
      if (space == 0) {
        packed.emplace_back();
        space = max_length;
      }
      const int64_t end = begin + std::min(space, lengths[row] - begin);
      packed.back().push_back({first_row + static_cast<int64_t>(row), begin, end});
      space -= end - begin;
      begin = end;
    }
  }
}

}  // namespace

PackingStrategy packing_strategy(const std::string& name) {
  if (name == "bfd") return PackingStrategy::bfd;
  if (name == "bfd_split") return PackingStrategy::bfd_split;
  if (name == "wrapped") return PackingStrategy::wrapped;
  throw ConfigError("packing_strategy", "'" + name + "' is none of bfd, bfd_split, wrapped");
}

Packed pack_rows(std::span<const int64_t> lengths, int64_t max_length, PackingStrategy strategy, int64_t group_rows) {
  if (max_length < 1) throw ConfigError("max_length", "packing needs a length of at least 1");
  Packed packed;
  for (size_t first = 0; first < lengths.size(); first += static_cast<size_t>(group_rows)) {
    const auto group = lengths.subspan(first, std::min(static_cast<size_t>(group_rows), lengths.size() - first));
    if (strategy == PackingStrategy::wrapped) {
      pack_wrapped(group, static_cast<int64_t>(first), max_length, packed);
      continue;
    }
    std::vector<PackedPiece> pieces;
    for (size_t i = 0; i < group.size(); ++i) {
      const auto row = static_cast<int64_t>(first + i);
      const int64_t kept = strategy == PackingStrategy::bfd ? std::min(group[i], max_length) : group[i];
      for (int64_t begin = 0; begin < kept; begin += max_length)
        pieces.push_back({row, begin, std::min(kept, begin + max_length)});
    }
    Packed of_group;  // sequences are not shared between groups
    pack_best_fit(std::move(pieces), max_length, of_group);
    std::move(of_group.begin(), of_group.end(), std::back_inserter(packed));
  }
  return packed;
}

PackedExample packed_example(std::span<const SftExample> rows, std::span<const PackedPiece> pieces,
                             PackingStrategy strategy) {
  PackedExample packed;
  for (const PackedPiece& piece : pieces) {
    const SftExample& row = rows[static_cast<size_t>(piece.row)];
    packed.input_ids.insert(packed.input_ids.end(), row.input_ids.begin() + piece.begin,
                            row.input_ids.begin() + piece.end);
    packed.labels.insert(packed.labels.end(), row.labels.begin() + piece.begin, row.labels.begin() + piece.end);
    packed.sample_lengths.push_back(static_cast<int32_t>(piece.end - piece.begin));
  }
  if (strategy == PackingStrategy::wrapped)
    packed.sample_lengths.assign(1, static_cast<int32_t>(packed.input_ids.size()));
  return packed;
}

int64_t trained_tokens(const PackedExample& example) {
  int64_t count = 0;
  auto begin = example.labels.begin();
  for (const int32_t length : example.sample_lengths) {
    count += length - 1 - std::count(begin + 1, begin + length, ignored_label);
    begin += length;
  }
  return count;
}

PackedRows pack_examples(std::span<const SftExample> rows, int64_t max_length, PackingStrategy strategy) {
  std::vector<int64_t> lengths;
  for (const SftExample& row : rows) lengths.push_back(static_cast<int64_t>(row.input_ids.size()));
  PackedRows packed;
  for (const auto& pieces : pack_rows(lengths, max_length, strategy)) {
    PackedExample example = packed_example(rows, pieces, strategy);
    if (trained_tokens(example) == 0) {
      ++packed.dropped;
    } else {
      packed.examples.push_back(std::move(example));
    }
  }
  return packed;
}

}  // namespace lathe::data
