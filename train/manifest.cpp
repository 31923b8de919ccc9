#include "train/manifest.h"

#include <xxhash.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/mapped_file.h"

namespace lathe::train {
namespace {

constexpr const char* manifest_name = "manifest.json";

std::string hash_text(const std::filesystem::path& file) {
  const auto mapped = MappedFile::open(file);
  char text[17];
  std::snprintf(text, sizeof text, "%016llx",
                static_cast<unsigned long long>(XXH64(mapped->bytes().data(), mapped->bytes().size(), 0)));
  return text;
}

}  // namespace

void write_manifest(const std::filesystem::path& directory) {
  std::map<std::string, nlohmann::ordered_json> files;  // in the order of their names
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    const std::string name = entry.path().lexically_relative(directory).generic_string();
    if (name == manifest_name || !entry.is_regular_file()) continue;
    files[name] = {{"bytes", entry.file_size()}, {"xxh64", hash_text(entry.path())}};
  }
  nlohmann::ordered_json manifest = {{"format", "lathe checkpoint 1"}};
  for (const auto& [name, description] : files) manifest["files"][name] = description;
  write_file_atomically(directory / manifest_name, manifest.dump(2) + "\n");
}

std::optional<std::string> broken_part(const std::filesystem::path& directory) {
  std::ifstream stream(directory / manifest_name);
  if (!stream) return std::string(manifest_name) + " is missing";
  const auto manifest = nlohmann::json::parse(stream, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object())
    return std::string(manifest_name) + " is no list of files";
  for (const auto& [name, description] : manifest["files"].items()) {
    std::error_code error;
    const auto size = std::filesystem::file_size(directory / name, error);
    if (error) return name + " is missing";
    if (!description.is_object() || description.value("bytes", uintmax_t{0}) != size)
      return name + " has " + std::to_string(size) + " bytes, not those of the manifest";
    if (description.value("xxh64", "") != hash_text(directory / name)) return name + " has other bytes than were saved";
  }
  return std::nullopt;
}

}  // namespace lathe::train
