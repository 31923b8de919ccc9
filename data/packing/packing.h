// Packing: several short rows in one sequence, so that little of a batch is padding. As TRL packs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/rows/sft_rows.h"

namespace lathe::data {

enum class PackingStrategy {
  bfd,        // best fit decreasing; rows longer than max_length lose their end
  bfd_split,  // best fit decreasing; longer rows are cut into pieces
  wrapped,    // rows end to end, cut every max_length tokens
};

// ConfigError for a name that is none of "bfd", "bfd_split", "wrapped".
PackingStrategy packing_strategy(const std::string& name);

// Tokens [begin, end) of a row.
struct PackedPiece {
  int64_t row;
  int64_t begin, end;
};

// How rows of these lengths share sequences of at most max_length tokens. Rows are packed in groups of `group_rows`
// (TRL maps a data set in batches of 1000), so that the cost grows with the number of rows and no faster than that.
std::vector<std::vector<PackedPiece>> pack_rows(std::span<const int64_t> lengths, int64_t max_length,
                                                PackingStrategy strategy, int64_t group_rows = 1000);

// A sequence of one or more samples. Positions restart with each sample and attention stays inside it. Labels are the
// rows' own: nothing predicts a sample's first token, so that its label is never trained.
struct PackedExample {
  std::vector<int32_t> input_ids;
  std::vector<int32_t> labels;
  std::vector<int32_t> sample_lengths;  // their sum is the number of ids; one entry for `wrapped`
};

PackedExample packed_example(std::span<const SftExample> rows, std::span<const PackedPiece> pieces,
                             PackingStrategy strategy);
// Labels that are learnt: those of the samples' first tokens do not count.
int64_t trained_tokens(const PackedExample& example);

struct PackedRows {
  std::vector<PackedExample> examples;
  int64_t dropped = 0;  // sequences without a label that is learnt: a step of one could not learn
};
PackedRows pack_examples(std::span<const SftExample> rows, int64_t max_length, PackingStrategy strategy);

}  // namespace lathe::data
