#include "kernels/arguments/indices.h"

#include <string>

#include "core/error.h"
#include "kernels/checks/expect.h"

namespace lathe::kernels {

Indices expect_indices(std::string_view operation, std::string_view argument, const Tensor& indices, int64_t count,
                       std::string_view table, int64_t table_rows, Device device) {
  expect(operation, argument, indices).shape({count}).dtype(DType::i32).contiguous();
  const Indices result{indices.data<int32_t>(), indices.device().kind == DeviceKind::cpu};
  if (!result.on_host) {
    expect(operation, argument, indices).device(device);
    return result;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int32_t index = result.data[i];
    if (index >= 0 && index < table_rows) continue;
    throw ShapeError(std::string(operation) + ": " + std::string(argument) + "[" + std::to_string(i) +
                     "] expects 0 ≤ index < " + std::to_string(table_rows) + " (the rows of " + std::string(table) +
                     "), found " + std::to_string(index));
  }
  return result;
}

}  // namespace lathe::kernels
