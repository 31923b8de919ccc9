// Weights of one shape and kind, as a product on a device finds one of them by a number that lies in its memory: a
// mixture's experts. Made once, when a model is loaded.
#pragma once

#include <span>
#include <vector>

#include "core/tensor.h"
#include "kernels/matmul/weights/weight.h"

namespace lathe::kernels {

class WeightTable {
 public:
  // Undefined.
  WeightTable() = default;
  // Of weights [N, K] and, where there are some, a bias [N] for each. Shares their memory, which may change but not
  // move. Undefined where grouped products (kernels/matmul/grouped.h) have no body for them beside activations of
  // `dtype`: on the CPU, of f32, of several kinds, formats or shapes, or where linear_forward reads no codes.
  static WeightTable of(std::vector<Weight> weights, std::vector<Tensor> biases, DType dtype);

  bool defined() const { return places_.defined(); }
  // Whether both may be gate and up of one product: of one format, shape and dtype.
  bool goes_with(const WeightTable& other) const;

  int64_t count() const { return places_.dim(0); }
  bool in_codes() const { return !weights_[0].dense() && !weights_[0].packed(); }
  int64_t rows() const { return weights_[0].rows(); }
  int64_t columns() const { return weights_[0].columns(); }
  DType dtype() const { return dtype_; }
  Device device() const { return places_.device(); }
  // For what all share.
  const Weight& first() const { return weights_[0]; }
  // u8 [count, bytes of one]: kernels/matmul/cuda/grouped.h.
  const Tensor& places() const { return places_; }
  // i64 [count], addresses; undefined: no biases.
  const Tensor& biases() const { return bias_places_; }
  // u8 [count, weight_map_bytes], of dense weights where products of many rows have a use for them; else undefined.
  const Tensor& maps() const { return maps_; }

 private:
  std::vector<Weight> weights_;
  std::vector<Tensor> biases_;
  DType dtype_ = DType::bf16;
  Tensor places_, bias_places_, maps_;
};

}  // namespace lathe::kernels
