#include "programs/data/part.h"

#include <sstream>

#include "core/error.h"

namespace lathe::programs {

data::RowPart parse_part(const std::string& text) {
  int64_t part = 0, parts = 0;
  char slash = 0;
  std::istringstream stream(text);
  if (!(stream >> part >> slash >> parts) || slash != '/' || !stream.eof())
    throw ConfigError("shard", "'" + text + "' is not i/n, such as 2/8");
  if (parts < 1 || part < 1 || part > parts)
    throw ConfigError("shard", "must be i/n with i from 1 to n, found " + text);
  return {part, parts};
}

void add_shard_option(CLI::App& command, std::string& shard, const std::string& what) {
  command.add_option("--shard", shard, "i/n: " + what)->capture_default_str();
}

}  // namespace lathe::programs
