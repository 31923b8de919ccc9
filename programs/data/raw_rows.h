// Raw rows read whole, as tokenize would: what lathe-data verify and stats say of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/readers/row_part.h"
#include "data/shards/manifest.h"
#include "programs/data/sft_row_options.h"

namespace lathe::programs {

struct RawRows {
  std::string input;  // a file, "-", or a folder of save_to_disk
  std::string kind = "sft";
  data::RowPart part;
  bool duplicates = false;  // whether they are to be counted
};

struct RawRowFacts {
  data::ShardTotals totals;  // of rows that are not bad; those above max_length counted as they are cut
  int64_t rows_read = 0, text_bytes = 0;
  int64_t duplicate_rows = 0;
  int64_t packed_rows = 0, packed_tokens = 0, packed_samples = 0;  // with packing
  std::vector<std::string> unreadable_files;  // why each could not be read to its end; rows before that count
  std::vector<std::string> warnings;          // each one sentence
};

// Every row: parsed, checked, templated and tokenised, on all threads. ConfigError where no model is named; errors as
// files_of_input()'s.
RawRowFacts read_raw_rows(const RawRows& rows, const SftRowOptions& options);

}  // namespace lathe::programs
