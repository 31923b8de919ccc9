// Numbers as digits, the one way for files and for people.
#pragma once

#include <cstdint>
#include <string>

namespace lathe {

// "00c0ffee00c0ffee": a hash of 64 bits in a file.
std::string hash_digits(uint64_t hash);

// "-1,234,567".
std::string grouped_digits(int64_t number);

}  // namespace lathe
