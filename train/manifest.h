// manifest.json: the size and xxHash-64 of every other file of a checkpoint, written last.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace lathe::train {

// Lists the files that lie in the directory and its folders ("objective/rollouts.safetensors").
void write_manifest(const std::filesystem::path& directory);

// What is wrong with the directory ("optimizer.safetensors: …"), or nothing when every listed file has its bytes and
// none is missing. FormatError for the manifest of another version of this program: such a checkpoint is not broken,
// and must be passed over by nobody.
std::optional<std::string> broken_part(const std::filesystem::path& directory);

}  // namespace lathe::train
