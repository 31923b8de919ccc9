#include "programs/model/license.h"

#include <fstream>

namespace lathe::programs {
namespace {

namespace fs = std::filesystem;

// The value of "key: value", without quotes; "" for another line.
std::string value_of(const std::string& line, const std::string& key) {
  if (!line.starts_with(key + ":")) return "";
  const char* around = " \t\r\"'";
  const size_t begin = line.find_first_not_of(around, key.size() + 1);
  return begin == line.npos ? "" : line.substr(begin, line.find_last_not_of(around) - begin + 1);
}

std::string of_model_card(const fs::path& card) {
  constexpr int most_lines = 500;  // of front matter, which some cards fill with results
  std::ifstream file(card);
  std::string line, license, name;
  if (!std::getline(file, line) || !line.starts_with("---")) return "";
  for (int i = 0; i < most_lines && std::getline(file, line) && !line.starts_with("---"); ++i) {
    if (license.empty()) license = value_of(line, "license");
    if (name.empty()) name = value_of(line, "license_name");
  }
  return license == "other" && !name.empty() ? name : license;
}

}  // namespace

std::string license_of(const nn::ModelFiles& files) {
  if (files.gguf) {
    const auto found = files.gguf->metadata().find("general.license");
    const auto* text = found == files.gguf->metadata().end() ? nullptr : std::get_if<std::string>(&found->second);
    return text == nullptr ? "" : *text;
  }
  if (std::string license = of_model_card(files.path / "README.md"); !license.empty()) return license;
  for (const char* name : {"LICENSE", "LICENSE.txt", "LICENSE.md"})
    if (std::error_code ignored; fs::exists(files.path / name, ignored)) return std::string("see ") + name;
  return "";
}

}  // namespace lathe::programs
