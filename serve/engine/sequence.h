// One request on its way through the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serve/engine/request.h"

namespace lathe::engine {

struct Sequence {
  RequestId id = 0;
  Request request;
  std::string adapter;               // of the request, settled when it came; "" for none
  std::vector<int32_t> output;       // generated so far
  std::vector<int32_t> block_table;  // its pages, in order
  int64_t cached = 0;                // tokens whose keys and values are in pages

  // Whether it runs before `other` where there is not room for both.
  bool before(const Sequence& other) const {
    return request.priority != other.request.priority ? request.priority < other.request.priority : id < other.id;
  }
  int64_t length() const { return static_cast<int64_t>(request.prompt.size() + output.size()); }
  int32_t token(int64_t position) const {
    const auto prompt_length = static_cast<int64_t>(request.prompt.size());
    return position < prompt_length ? request.prompt[static_cast<size_t>(position)]
                                    : output[static_cast<size_t>(position - prompt_length)];
  }
};

}  // namespace lathe::engine
