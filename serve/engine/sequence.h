// One request on its way through the engine.
#pragma once

#include <cstdint>
#include <vector>

#include "serve/engine/request.h"

namespace lathe::engine {

struct Sequence {
  RequestId id = 0;
  Request request;
  std::vector<int32_t> output;       // generated so far
  std::vector<int32_t> block_table;  // its pages, in order
  int64_t cached = 0;                // tokens whose keys and values are in pages

  int64_t length() const { return static_cast<int64_t>(request.prompt.size() + output.size()); }
  int32_t token(int64_t position) const {
    const auto prompt_length = static_cast<int64_t>(request.prompt.size());
    return position < prompt_length ? request.prompt[static_cast<size_t>(position)]
                                    : output[static_cast<size_t>(position - prompt_length)];
  }
};

}  // namespace lathe::engine
