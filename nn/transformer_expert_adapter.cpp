// Adapters of a mixture's experts on the transformer.
#include "nn/expert_adapters.h"
#include "nn/layer_layout.h"
#include "nn/transformer.h"

namespace lathe::nn {

// What experts of a new adapter begin as, by their linears. A pair's number goes on after those of the model's linears.
std::map<std::string, LoraWeights> Transformer::starting_expert_weights(const LoraConfig& config,
                                                                        const ParsedLoraStart& start,
                                                                        uint64_t seed) const {
  std::map<std::string, LoraWeights> modules;
  uint64_t number = linears().size();
  for (int64_t i = 0; i < config_.num_hidden_layers(); ++i) {
    const ExpertTargets targets = expert_targets(config_, config, i);
    const int64_t hidden = config_.hidden_size, inner = config_.experts.intermediate_size;
    for (const ExpertShape& expert : layer_layout(config_, i).experts) {
      const uint64_t of_gate_up = ++number, of_down = ++number;
      if (targets.gate_up) {
        const StartingWeights both = random_start(start.kind, config.r, hidden, 2 * inner, seed, of_gate_up);
        modules[layer_prefix(i) + expert.gate_proj.name] = {both.a, both.b.slice(0, 0, inner), {}};
        modules[layer_prefix(i) + expert.up_proj.name] = {both.a, both.b.slice(0, inner, 2 * inner), {}};
      }
      if (targets.down) {
        StartingWeights down = random_start(start.kind, config.r, inner, hidden, seed, of_down);
        modules[layer_prefix(i) + expert.down_proj.name] = {std::move(down.a), std::move(down.b), {}};
      }
    }
  }
  return modules;
}

void Transformer::attach_expert_lora(std::string_view name, const LoraConfig& config,
                                     const std::map<std::string, LoraWeights>& modules) {
  if (config.target_parameters.empty()) return;
  const auto of = [&](const Linear& linear) -> std::optional<LoraLayer> {
    const auto found = modules.find(linear.name);
    if (found == modules.end()) return std::nullopt;
    // What is given may be a file's own memory, or a part of both factors of gate and up.
    const auto copy = [](const Tensor& values) { return values.clone(MemoryTag::adapters); };
    return make_lora(linear.name, config, {copy(found->second.a), copy(found->second.b), {}});
  };
  for (Layer& layer : layers_) {
    if (!layer.feed_forward.experts) continue;
    for (Expert& expert : layer.feed_forward.experts->experts) {
      ExpertLora lora{of(expert.gate_proj), of(expert.up_proj), of(expert.down_proj)};
      if (lora.gate) lora.up->a = lora.gate->a;
      if (lora.gate || lora.down) expert.lora.emplace(name, std::move(lora));
    }
  }
}

void Transformer::add_expert_parameters(std::string_view adapter, std::vector<Parameter>& parameters) {
  const size_t first = parameters.size();
  for (Layer& layer : layers_) {
    if (!layer.feed_forward.experts) continue;
    for (const Expert& expert : layer.feed_forward.experts->experts) {
      const auto found = expert.lora.find(adapter);
      if (found == expert.lora.end()) continue;
      const auto& [gate, up, down] = found->second;
      if (gate) parameters.insert(parameters.end(), {gate->a, gate->b, up->b});
      if (down) parameters.insert(parameters.end(), {down->a, down->b});
    }
  }
  // An expert that no token of a batch goes through has a gradient of zeros, not none.
  for (size_t i = first; i < parameters.size(); ++i)
    if (!parameters[i].leaf.grad().defined())
      parameters[i].leaf.set_grad(Tensor::zeros(parameters[i].master.shape(), parameters[i].master.dtype(),
                                                options_.device, MemoryTag::gradients));
}

}  // namespace lathe::nn
