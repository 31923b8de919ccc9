// The A and B of a LoRA in the panels that products stream: for batches in which many adapters have few rows each,
// where packing them on the way would take longer than the products (docs/performance.md).
#pragma once

#include <cstdint>
#include <mutex>

#include "kernels/matmul/weights/packed/narrow_panels.h"
#include "kernels/matmul/weights/packed/packed_weight.h"

namespace lathe::nn {

class PackedLora {
 public:
  struct Pair {
    kernels::NarrowPanels a;
    kernels::PackedWeight b;
  };
  // Of a [r, K] and b [N, r]; packed again where one has changed since.
  Pair of(const Tensor& a, const Tensor& b) const;

 private:
  mutable std::mutex mutex_;
  mutable uint64_t a_version_ = 0, b_version_ = 0;
  mutable Pair pair_;
};

}  // namespace lathe::nn
