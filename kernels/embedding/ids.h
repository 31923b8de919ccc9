// The check that every token id names a row.
#pragma once

#include <string>

#include "core/error.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {

inline void expect_ids(const char* operation, const Tensor& ids, int64_t vocabulary) {
  expect(operation, "ids", ids).rank(1).dtype(DType::i32).contiguous();
  int64_t t = 0;
  for (int32_t id : ids.span<int32_t>()) {
    if (id < 0 || id >= vocabulary) {
      throw ShapeError(std::string(operation) + ": ids[" + std::to_string(t) + "] expects 0 ≤ id < " +
                       std::to_string(vocabulary) + " (the rows of weight), found " + std::to_string(id));
    }
    ++t;
  }
}

}  // namespace lathe::kernels
