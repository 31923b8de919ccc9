// Takes a model's weights out of a source, one by one, and knows at the end whether any was left over.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/ops/linear.h"
#include "nn/parameter.h"
#include "nn/weights/weight_source.h"

namespace lathe::nn {

class WeightLoader {
 public:
  // With `parameters`, every weight becomes a dense trainable leaf that is listed there; without, it is frozen and packed.
  WeightLoader(const WeightSource& source, DType dtype, std::vector<Parameter>* parameters)
      : source_(source), dtype_(dtype), parameters_(parameters) {}

  // FormatError when the name is missing or has another shape.
  autograd::LinearWeight matrix(const std::string& name, int64_t rows, int64_t columns);
  autograd::Variable vector(const std::string& name, int64_t size);
  bool has(std::string_view name) const { return source_.find(name) != nullptr; }
  // A weight that may stand in the file without being used.
  void ignore(const std::string& name) { used_.insert(name); }
  // FormatError naming the weights that nothing asked for.
  void check_all_used() const;

 private:
  void expect(const std::string& name, const Shape& shape);
  Tensor dense(const std::string& name, const Shape& shape) const;

  const WeightSource& source_;
  DType dtype_;
  std::vector<Parameter>* parameters_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace lathe::nn
