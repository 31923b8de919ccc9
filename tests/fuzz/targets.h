// The fuzz targets of a program that runs the kept files of all (tests/fuzz/CMakeLists.txt makes the list).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace lathe::fuzz {

using Target = int (*)(const uint8_t* data, size_t size);

// By the names of their files.
std::map<std::string, Target> all_targets();

}  // namespace lathe::fuzz
