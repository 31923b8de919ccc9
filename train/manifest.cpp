#include "train/manifest.h"

#include <xxhash.h>

#include <algorithm>
#include <map>
#include <memory>

#include "core/atomic_write.h"
#include "core/digits.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/mapped_file.h"

namespace lathe::train {
namespace {

constexpr const char* manifest_name = "manifest.json";
constexpr std::string_view format_family = "lathe checkpoint ", format_name = "lathe checkpoint 1";

std::string hash_text(const std::filesystem::path& file) {
  constexpr size_t piece = 8 << 20;  // resident at a time: a checkpoint is as large as the model that is in memory
  const auto mapped = MappedFile::open(file);
  const std::unique_ptr<XXH64_state_t, decltype(&XXH64_freeState)> state(XXH64_createState(), &XXH64_freeState);
  XXH64_reset(state.get(), 0);
  for (auto left = mapped->bytes(); !left.empty(); left = left.subspan(std::min(piece, left.size()))) {
    XXH64_update(state.get(), left.data(), std::min(piece, left.size()));
    mapped->release_pages();
  }
  return hash_digits(XXH64_digest(state.get()));
}

// Whether a listed name is that of a file below the folder: a manifest may come from anyone, and no other file's
// contents are this checkpoint's.
bool stays_inside(const std::filesystem::path& name) {
  return name.is_relative() && !name.empty() && std::ranges::find(name, "..") == name.end();
}

// Its "files", or nothing where it is no manifest.
std::optional<nlohmann::ordered_json> read_files(const std::filesystem::path& path) {
  nlohmann::ordered_json manifest;
  try {
    manifest = read_json_file(path);
  } catch (const FormatError&) {
    return std::nullopt;
  }
  const auto format = manifest.find("format"), files = manifest.find("files");
  if (format == manifest.end() || files == manifest.end() || !format->is_string() || !files->is_object())
    return std::nullopt;
  const auto name = format->get<std::string>();
  if (!name.starts_with(format_family)) return std::nullopt;
  if (name != format_name)
    throw FormatError(path.string(), -1,
                      "has the format \"" + name + "\", and this program knows \"" + std::string(format_name) +
                          "\"; resume with the version that wrote it, or choose another output_dir");
  return *files;
}

}  // namespace

void write_manifest(const std::filesystem::path& directory) {
  std::map<std::string, nlohmann::ordered_json> files;  // in the order of their names
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    const std::string name = entry.path().lexically_relative(directory).generic_string();
    if (name == manifest_name || !entry.is_regular_file()) continue;
    files[name] = {{"bytes", entry.file_size()}, {"xxh64", hash_text(entry.path())}};
  }
  nlohmann::ordered_json manifest = {{"format", format_name}};
  for (const auto& [name, description] : files) manifest["files"][name] = description;
  write_file_atomically(directory / manifest_name, manifest.dump(2) + "\n");
}

std::optional<std::string> broken_part(const std::filesystem::path& directory) {
  if (!std::filesystem::exists(directory / manifest_name)) return std::string(manifest_name) + " is missing";
  const auto files = read_files(directory / manifest_name);
  if (!files) return std::string(manifest_name) + " is no list of files";
  for (const auto& [name, description] : files->items()) {
    if (!stays_inside(name)) return std::string(manifest_name) + " lists " + name + ", which is no file of the folder";
    std::error_code error;
    const auto size = std::filesystem::file_size(directory / name, error);
    if (error) return name + " is missing";
    const auto bytes = description.find("bytes"), hash = description.find("xxh64");
    if (bytes == description.end() || *bytes != size)
      return name + " has " + std::to_string(size) + " bytes, not those of the manifest";
    if (hash == description.end() || *hash != hash_text(directory / name))
      return name + " has other bytes than were saved";
  }
  return std::nullopt;
}

}  // namespace lathe::train
