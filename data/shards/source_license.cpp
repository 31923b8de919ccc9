#include "data/shards/source_license.h"

#include <fstream>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;

// A card is prose with a few lines of YAML before it.
constexpr int most_card_lines = 1000;
constexpr size_t most_bytes = 1000;

std::string trimmed(std::string_view text) {
  constexpr const char* around = " \t\r\"'";
  const size_t first = text.find_first_not_of(around);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(around) - first + 1));
}

std::string of_info(const fs::path& file) {
  try {
    const nlohmann::ordered_json info = read_json_file(file);
    const auto license = info.is_object() ? info.find("license") : info.end();
    return info.is_object() && license != info.end() && license->is_string() ? trimmed(license->get<std::string>())
                                                                             : "";
  } catch (const Error&) {
    return "";  // rows are read without it
  }
}

// "license: mit", or a list below "license:".
std::string of_card(const fs::path& file) {
  std::ifstream card(file, std::ios::binary);
  std::string line, found;
  if (!std::getline(card, line) || trimmed(line) != "---") return "";
  bool in_list = false;
  for (int i = 0; i < most_card_lines && std::getline(card, line) && trimmed(line) != "---"; ++i) {
    constexpr std::string_view key = "license:";
    const std::string item = trimmed(line);
    if (line.starts_with(key)) {
      found = trimmed(std::string_view(line).substr(key.size()));
      if (!found.empty()) return found;
      in_list = true;
    } else if (in_list && item.starts_with("- ")) {
      found += (found.empty() ? "" : ", ") + trimmed(std::string_view(item).substr(2));
    } else if (in_list) {
      break;
    }
  }
  return found;
}

}  // namespace

std::string license_beside(const fs::path& rows) {
  std::error_code ignored;
  if (!fs::is_regular_file(rows, ignored)) return "";  // standard input, a pipe
  const fs::path folder = rows.parent_path();
  std::string license;
  if (fs::is_regular_file(folder / "dataset_info.json", ignored)) license = of_info(folder / "dataset_info.json");
  if (license.empty() && fs::is_regular_file(folder / "README.md", ignored)) license = of_card(folder / "README.md");
  return license.substr(0, most_bytes);
}

}  // namespace lathe::data
