// What a forward product into f32 can leave of its rows beside them: the statistics that cross entropy would else read
// the logits for once more.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "kernels/matmul/arguments.h"

namespace lathe::kernels {

// Of each 64 columns of a row of out · inverse_temperature: the largest, and Σ exp of the distances from it, in the
// order of kernels/linear_cross_entropy/row_statistics.cuh.
struct ColumnStatistics {
  static constexpr int columns = 64;  // of a group
  float* pairs = nullptr;             // [m, groups, 2] in device memory; null: none are made
  int64_t groups = 0;
  float inverse_temperature = 1.0f;
};

// dense_sm_90a.cu: warpgroup_product() with its statistics. False, and nothing done, where that does not take the
// operands, and where more is done with the sums than to write them as f32.
template <DeviceKind>
bool product_with_statistics(const ProductArgs& args, const ColumnStatistics& statistics);

}  // namespace lathe::kernels
