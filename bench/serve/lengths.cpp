#include "bench/serve/lengths.h"

#include <fstream>
#include <sstream>
#include <string>

#include "core/error.h"

namespace lathe::bench {

std::vector<RequestLength> read_lengths(const std::filesystem::path& path) {
  constexpr int64_t most_tokens = 10'000'000;
  std::ifstream file(path);
  if (!file) throw ResourceError(path.string() + ": cannot be read");
  std::vector<RequestLength> lengths;
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos || line.starts_with('#')) continue;
    std::istringstream fields(line);
    RequestLength length;
    std::string more;
    if (!(fields >> length.prompt_tokens >> length.output_tokens) || (fields >> more) || length.prompt_tokens < 1 ||
        length.output_tokens < 1 || length.prompt_tokens > most_tokens || length.output_tokens > most_tokens)
      throw FormatError(path.string(), -1,
                        "line " + std::to_string(number) + ": expected PROMPT_TOKENS OUTPUT_TOKENS, found " + line);
    lengths.push_back(length);
  }
  if (lengths.empty())
    throw FormatError(path.string(), -1, "expected lines of PROMPT_TOKENS OUTPUT_TOKENS, found none");
  return lengths;
}

}  // namespace lathe::bench
