#include "nn/weights/own_weights.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"

namespace lathe::nn {
namespace {

class OwnWeights final : public WeightSource {
 public:
  OwnWeights(std::unique_ptr<WeightSource> source, const ModelConfig& config) : source_(std::move(source)) {
    for (const WeightInfo& info : source_->weights()) {
      const auto begins = [&info](const std::string& prefix) { return info.name.starts_with(prefix); };
      if (std::ranges::any_of(config.unused_weights, begins)) continue;
      infos_.push_back(info);
      if (begins(config.weight_prefix))
        infos_.back().name = std::string(own_weight_prefix) + info.name.substr(config.weight_prefix.size());
      if (!place_.emplace(infos_.back().name, Place{infos_.size() - 1, info.name}).second)
        throw FormatError("the model's weights", -1, "two of them stand for " + infos_.back().name);
    }
  }

  bool changes() const {
    return infos_.size() != source_->weights().size() ||
           std::ranges::any_of(infos_, [&](const WeightInfo& info) { return source_->find(info.name) == nullptr; });
  }
  std::unique_ptr<WeightSource> give_back() { return std::move(source_); }

  const std::vector<WeightInfo>& weights() const override { return infos_; }
  const WeightInfo* find(std::string_view name) const override {
    const auto found = place_.find(std::string(name));
    return found == place_.end() ? nullptr : &infos_[found->second.index];
  }
  void read_rows(std::string_view name, int64_t first, int64_t count, float* out) const override {
    source_->read_rows(name_in_source(name), first, count, out);
  }
  void release_pages() const override { source_->release_pages(); }
  std::optional<kernels::StoredWeight> codes(std::string_view name) const override {
    return source_->codes(name_in_source(name));
  }
  std::optional<StoredBlocks> blocks(std::string_view name) const override {
    return source_->blocks(name_in_source(name));
  }

 private:
  struct Place {
    size_t index;
    std::string name;  // the source's
  };
  // One that is not known goes on as it is, for the source to say so.
  std::string name_in_source(std::string_view name) const {
    const auto found = place_.find(std::string(name));
    return found == place_.end() ? std::string(name) : found->second.name;
  }

  std::unique_ptr<WeightSource> source_;
  std::vector<WeightInfo> infos_;
  std::unordered_map<std::string, Place> place_;
};

}  // namespace

std::unique_ptr<WeightSource> own_weights(std::unique_ptr<WeightSource> source, const ModelConfig& config) {
  if (config.unused_weights.empty() && config.weight_prefix == own_weight_prefix) return source;
  auto own = std::make_unique<OwnWeights>(std::move(source), config);
  if (own->changes()) return own;
  return own->give_back();
}

}  // namespace lathe::nn
