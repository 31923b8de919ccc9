// What a dataset says of its own licence, beside its rows.
#pragma once

#include <filesystem>
#include <string>

namespace lathe::data {

// By the names in use on the Hub ("apache-2.0", "mit, cc-by-4.0"): "license" of the dataset_info.json that the datasets
// library writes beside rows, or of the front matter of a dataset card, README.md, there. Empty where neither names
// one.
std::string license_beside(const std::filesystem::path& rows);

}  // namespace lathe::data
