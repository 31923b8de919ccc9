// Lengths of requests as they came somewhere: a line for each, PROMPT_TOKENS OUTPUT_TOKENS.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace lathe::bench {

struct RequestLength {
  int64_t prompt_tokens = 1, output_tokens = 1;
};

// Empty lines and those that begin with '#' are left out. FormatError names the line that is none; ResourceError where
// the file cannot be read.
std::vector<RequestLength> read_lengths(const std::filesystem::path& path);

}  // namespace lathe::bench
