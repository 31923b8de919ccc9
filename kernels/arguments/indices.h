// Indices that say for each row of a tensor which row of a table it takes: token ids, positions.
#pragma once

#include <cstdint>
#include <string_view>

namespace lathe {
class Tensor;
struct Device;
}  // namespace lathe

namespace lathe::kernels {

struct Indices {
  const int32_t* data;
  bool on_host;  // otherwise in the memory of the device that runs the body
};

// indices i32 [count], on the cpu or on `device`. On the cpu, one outside [0, rows of the table) is a ShapeError that
// names it. On a device the kernel is the first to look, so that nothing has to wait (a captured graph of a
// decoding step reads what the step before sampled): there a bad index gives a row of NaN.
Indices expect_indices(std::string_view operation, std::string_view argument, const Tensor& indices, int64_t count,
                       std::string_view table, int64_t table_rows, Device device);

}  // namespace lathe::kernels
