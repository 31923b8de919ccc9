#include "nn/weight_loader.h"

#include <algorithm>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"

namespace lathe::nn {
namespace {

// Rows that one thread dequantises and packs at a time: a multiple of every panel's width, and few enough that their f32 values
// stay in the second-level cache (64 × 1536 × 4 bytes).
constexpr int64_t rows_per_task = 64;

}  // namespace

autograd::LinearWeight WeightLoader::matrix(const std::string& name, int64_t rows, int64_t columns) {
  expect(name, {rows, columns});
  if (parameters_ != nullptr || dtype_ == DType::f64) {
    Tensor master = dense(name, {rows, columns});
    if (parameters_ == nullptr) return autograd::LinearWeight(std::move(master));
    parameters_->push_back(Parameter::make(name, std::move(master), dtype_));
    return autograd::LinearWeight(parameters_->back().leaf);
  }
  auto packed = kernels::PackedWeight::allocate(rows, columns, dtype_);
  parallel_for(rows, rows_per_task, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>((end - begin) * columns));
    source_.read_rows(name, begin, end - begin, values.data());
    packed.pack_rows(begin, end - begin, values.data());
  });
  return autograd::LinearWeight(std::move(packed));
}

autograd::LinearWeight WeightLoader::quantized_matrix(const std::string& name, int64_t rows, int64_t columns,
                                                      kernels::QuantizedFormat format) {
  expect(name, {rows, columns});
  const Tensor values = dense(name, {rows, columns});
  if (format == kernels::QuantizedFormat::nf4)
    return kernels::QuantizedWeight::pack(kernels::quantize_nf4(values, 64, kernels::Nf4Scales::nested, MemoryTag::workspace));
  return kernels::QuantizedWeight::pack(kernels::quantize_int8(values, MemoryTag::workspace));
}

autograd::Variable WeightLoader::vector(const std::string& name, int64_t size) {
  expect(name, {size});
  Tensor master = dense(name, {size});
  if (parameters_ == nullptr) {
    const MemoryTagScope tag(MemoryTag::weights);
    return autograd::Variable(kernels::cast(master, dtype_));
  }
  parameters_->push_back(Parameter::make(name, std::move(master), dtype_));
  return parameters_->back().leaf;
}

void WeightLoader::check_all_used() const {
  std::string left;
  int count = 0;
  for (const WeightInfo& info : source_.weights())
    if (!used_.contains(info.name) && ++count <= 3) left += (left.empty() ? "" : ", ") + info.name;
  if (count > 0)
    throw FormatError("the model's weights", -1,
                      std::to_string(count) + " of them have no place in this architecture: " + left +
                          (count > 3 ? ", …" : "") + "; the config and the weights do not belong together");
}

void WeightLoader::expect(const std::string& name, const Shape& shape) {
  const WeightInfo* info = source_.find(name);
  if (info == nullptr) throw FormatError("the model's weights", -1, name + " is missing");
  if (info->shape != shape)
    throw FormatError("the model's weights", -1,
                      name + ": expected shape " + to_string(shape) + ", found " + to_string(info->shape));
  used_.insert(name);
}

Tensor WeightLoader::dense(const std::string& name, const Shape& shape) const {
  Tensor values = Tensor::empty(shape, DType::f32, {}, MemoryTag::weights);
  const int64_t columns = shape[-1], rows = shape.numel() / columns;
  float* out = values.data<float>();
  parallel_for(rows, rows_per_task, [&](int64_t begin, int64_t end) {
    source_.read_rows(name, begin, end - begin, out + begin * columns);
  });
  if (dtype_ != DType::f64) return values;
  const MemoryTagScope tag(MemoryTag::weights);
  return kernels::cast(values, DType::f64);
}

}  // namespace lathe::nn
