// Weights of a directory of which the linears are stored as codes and read as numbers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "nn/weights/safetensors.h"

namespace lathe::nn {

// One linear's [out, in], whose parts lie in a file that is mapped as long as it lives.
class StoredLinear {
 public:
  virtual ~StoredLinear() = default;
  virtual int64_t out() const = 0;
  virtual int64_t in() const = 0;
  virtual std::string stored_type() const = 0;  // WeightInfo's
  virtual int64_t stored_bytes() const = 0;
  // Rows [first, first + count), which there are, as f32.
  virtual void read_rows(int64_t first, int64_t count, float* values) const = 0;
};
using StoredLinears = std::map<std::string, std::unique_ptr<StoredLinear>, std::less<>>;  // by "….weight"

// A floating number of a tensor's on the cpu, by its place.
float number_at(const Tensor& tensor, int64_t i);
// As the dtype holds it.
float rounded(DType dtype, float value);

// The linears, and of the other tensors those that are no `parts` of them; experts that are stacked there, gate before
// up, are apart. FormatError for one of these that is not floating.
std::unique_ptr<WeightSource> with_linears(const SafetensorsTensors& tensors, const std::set<std::string>& parts,
                                           StoredLinears linears);

}  // namespace lathe::nn
