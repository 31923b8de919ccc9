// "2/8": which of how many parts of the work a process takes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "data/readers/row_part.h"

namespace lathe::programs {

// ConfigError (shard) for anything else.
data::RowPart parse_part(const std::string& text);

// --shard i/n; `what` says what a part is.
void add_shard_option(CLI::App& command, std::string& shard, const std::string& what);

}  // namespace lathe::programs
