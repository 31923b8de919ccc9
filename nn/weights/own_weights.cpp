#include "nn/weights/own_weights.h"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "nn/weights/peft.h"

namespace lathe::nn {
namespace {

// What the source calls "model.": older Qwen2-VLs do, beside "visual.".
std::string_view prefix_of_text(const WeightSource& source) {
  const std::string_view embedding = "embed_tokens.weight";
  for (const std::string_view prefix : text_model_prefixes)
    if (source.find(std::string(prefix).append(embedding)) != nullptr) return prefix;
  if (source.find(std::string(own_weight_prefix).append(embedding)) != nullptr) return own_weight_prefix;
  throw FormatError("the model's weights", -1,
                    "expected the text model's embedding, model.language_model.embed_tokens.weight, "
                    "language_model.model.embed_tokens.weight, model.text_model.embed_tokens.weight or "
                    "model.embed_tokens.weight, found none of them");
}

// The name of a weight of the model; nothing of others.
std::optional<std::string> own_name(const std::string& name, std::string_view prefix, const ModelConfig& config) {
  const auto begins = [&name](std::string_view with) { return name.starts_with(with); };
  if (std::ranges::any_of(config.unused_weights, begins)) return std::nullopt;
  if (begins(prefix)) return std::string(own_weight_prefix).append(name, prefix.size());
  if (!config.multimodal || begins("lm_head.")) return name;
  constexpr std::string_view before_head = "language_model.";
  if (begins("language_model.lm_head.")) return name.substr(before_head.size());
  return std::nullopt;
}

class OwnWeights final : public WeightSource {
 public:
  OwnWeights(std::unique_ptr<WeightSource> source, const ModelConfig& config) : source_(std::move(source)) {
    const std::string_view prefix = config.multimodal ? prefix_of_text(*source_) : own_weight_prefix;
    for (const WeightInfo& info : source_->weights()) {
      const std::optional<std::string> name = own_name(info.name, prefix, config);
      if (!name) continue;
      infos_.push_back(info);
      infos_.back().name = *name;
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
  if (config.unused_weights.empty() && !config.multimodal) return source;
  auto own = std::make_unique<OwnWeights>(std::move(source), config);
  if (own->changes()) return own;
  return own->give_back();
}

bool is_text_module(std::string_view module) {
  return module.starts_with("model.layers.") || module == embedding_module || module == output_module;
}

PeftAdapter of_text_alone(PeftAdapter adapter) {
  std::erase_if(adapter.modules, [](const auto& entry) { return !is_text_module(entry.first); });
  return adapter;
}

}  // namespace lathe::nn
