#include "nn/weights/dequantized_linears.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "nn/weights/stacked_experts.h"

namespace lathe::nn {
namespace {

class WithLinears final : public WeightSource {
 public:
  WithLinears(std::unique_ptr<WeightSource> plain, StoredLinears linears,
              std::set<std::shared_ptr<const SafetensorsFile>> files)
      : plain_(std::move(plain)), linears_(std::move(linears)), files_(std::move(files)) {
    for (const WeightInfo& info : plain_->weights())
      if (!is_bias_of_zeros(info)) infos_.push_back(info);
    for (const auto& [name, linear] : linears_)
      infos_.push_back({name, name, linear->stored_type(), Shape{linear->out(), linear->in()}, linear->stored_bytes()});
    for (const WeightInfo& info : infos_) by_name_[info.name] = &info;
  }

  void release_pages() const override {
    for (const auto& file : files_) file->release_pages();
  }
  const std::vector<WeightInfo>& weights() const override { return infos_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? plain_->find(name) : found->second;
  }
  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    const auto found = linears_.find(name);
    if (found == linears_.end()) return plain_->read_rows(name, first, count, out);
    const StoredLinear& linear = *found->second;
    if (first < 0 || count < 0 || first > linear.out() - count)
      throw ShapeError(std::string(name) + ": rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                       " asked of " + std::to_string(linear.out()));
    linear.read_rows(first, count, out);
  }

 private:
  // Packers write a bias of zeros for a linear that has none: it is found where the model asks for it, and else passed
  // over.
  bool is_bias_of_zeros(const WeightInfo& info) const {
    constexpr std::string_view bias = ".bias";
    if (!info.name.ends_with(bias) || info.shape.rank() != 1) return false;
    if (!linears_.contains(info.name.substr(0, info.name.size() - bias.size()) + ".weight")) return false;
    std::vector<float> values(static_cast<size_t>(info.shape.numel()));
    plain_->read_rows(info.name, 0, 1, values.data());
    return std::all_of(values.begin(), values.end(), [](float value) { return value == 0; });
  }

  std::unique_ptr<WeightSource> plain_;
  StoredLinears linears_;
  std::set<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<WeightInfo> infos_;
  std::map<std::string, const WeightInfo*, std::less<>> by_name_;
};

}  // namespace

float number_at(const Tensor& tensor, int64_t i) {
  switch (tensor.dtype()) {
    case DType::f16: return static_cast<float>(tensor.data<f16>()[i]);
    case DType::bf16: return static_cast<float>(tensor.data<bf16>()[i]);
    default: return tensor.data<float>()[i];
  }
}

float rounded(DType dtype, float value) {
  switch (dtype) {
    case DType::f16: return static_cast<float>(f16(value));
    case DType::bf16: return static_cast<float>(bf16(value));
    default: return value;
  }
}

std::unique_ptr<WeightSource> with_linears(const SafetensorsTensors& tensors, const std::set<std::string>& parts,
                                           StoredLinears linears) {
  SafetensorsTensors plain;
  std::set<std::shared_ptr<const SafetensorsFile>> files;
  for (const auto& tensor : tensors) {
    files.insert(tensor.second);
    if (!parts.contains(tensor.first)) plain.push_back(tensor);
  }
  // Experts that are no linears of their own are often left as they were.
  auto others = has_stacked_experts(plain) ? split_experts(plain, StackedExperts::gate_before_up)
                                           : open_safetensors_weights(plain);
  return std::make_unique<WithLinears>(std::move(others), std::move(linears), std::move(files));
}

}  // namespace lathe::nn
