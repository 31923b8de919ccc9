// What every model of words gives.
#pragma once

#include <cstdint>

namespace lathe::data {

// A token and which bytes of the word it covers.
struct WordToken {
  int32_t id;
  uint32_t begin;
  uint32_t end;
};

}  // namespace lathe::data
