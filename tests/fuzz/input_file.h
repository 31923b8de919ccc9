// The bytes of one run of a fuzz target as a file, for functions that read files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/support/temporary_folder.h"

namespace lathe::fuzz {

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// One folder for the whole process: a target runs many thousand times.
inline const std::filesystem::path& folder() {
  static const TemporaryFolder folder;
  return folder.path();
}

// The file of that name in folder(), with these bytes.
inline std::filesystem::path write_input(const char* name, std::string_view bytes) {
  const std::filesystem::path path = folder() / name;
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

}  // namespace lathe::fuzz
