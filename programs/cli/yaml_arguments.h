// --config files: a YAML mapping of flag names to values or lists of values.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lathe::cli {

// Key and value as they stand in the file, lists joined with commas; keys without a value are left out. ConfigError
// (config) for a file that cannot be read, or with the key for a value that is none of these; FormatError with the line
// for a file that is no such mapping. Files are read within bounds: 1 MiB, 100 levels, and no anchors and aliases, with
// which a few lines can stand for gigabytes or for a list that holds itself.
std::vector<std::pair<std::string, std::string>> read_yaml_settings(const std::string& file);

}  // namespace lathe::cli
