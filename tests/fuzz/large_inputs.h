// What the corpus holds in kilobytes of text, as files that are too large to be kept: deep, wide, long.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe::fuzz {

// Names and bytes.
std::vector<std::pair<std::string, std::string>> large_inputs(std::string_view target);

}  // namespace lathe::fuzz
