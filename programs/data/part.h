// "2/8": which of how many parts of the work a process takes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace lathe::programs {

// The part, from 1, and how many there are. ConfigError (shard) for anything else.
std::pair<int64_t, int64_t> parse_part(const std::string& text);

}  // namespace lathe::programs
