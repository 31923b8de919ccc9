// Rows that are packed while a run draws them. A window is 1000 rows that lie next to each other; it is packed, best
// fit decreasing, from the lengths of its rows alone, whenever one of its packed rows is asked for and it is not at
// hand. Nothing is remembered but how many packed rows each window has: where a run goes on, it packs as before. The
// rows are those of lathe-data tokenize --packing and of a raw file (data/packing/packing.h, whose groups these windows
// are).
#pragma once

#include <cstdint>
#include <memory>

#include "train/token_rows.h"

namespace lathe::train {

// Every row of `rows` is one sequence of at most max_length tokens with something to learn. Making it reads the length
// of every row, in parallel: FormatError where a shard is not what was written.
std::unique_ptr<TokenRows> packed_rows(std::shared_ptr<const TokenRows> rows, int64_t max_length);

}  // namespace lathe::train
