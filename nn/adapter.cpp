#include "nn/adapter.h"

#include <algorithm>

#include "core/digits.h"
#include "core/error.h"
#include "nn/expert_adapters.h"
#include "nn/layer_layout.h"
#include "nn/lora_start.h"

namespace lathe::nn {
namespace {

bool saves(const LoraConfig& config, std::string_view module) {
  return std::find(config.modules_to_save.begin(), config.modules_to_save.end(), module) !=
         config.modules_to_save.end();
}

template <class Visitor>
void for_each_target(const ModelConfig& model, const LoraConfig& config, Visitor visit) {
  for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer)
    for (const LinearShape& linear : layer_layout(model, layer).linears())
      if (const std::string name = layer_prefix(layer) + linear.name; config.targets(name))
        visit(name, linear.in, linear.out);
}

// The shapes of the factors of a layer's experts, in the order of Transformer::trainable_parameters.
void add_expert_shapes(const ModelConfig& model, const LoraConfig& config, int64_t layer, std::vector<Shape>& shapes) {
  const ExpertTargets targets = expert_targets(model, config, layer);
  const int64_t inner = model.experts.intermediate_size, r = config.r;
  for (int64_t e = 0; e < model.experts.num_experts; ++e) {
    if (targets.gate_up) shapes.insert(shapes.end(), {{r, model.hidden_size}, {inner, r}, {inner, r}});
    if (targets.down) shapes.insert(shapes.end(), {{r, inner}, {model.hidden_size, r}});
  }
}

// Of a new adapter.
void check_start(const ModelConfig& model, const LoraConfig& config) {
  const std::optional<ParsedLoraStart> start = parse_lora_start(config.init_lora_weights);
  if (!start)
    throw ConfigError("init_lora_weights", "'" + config.init_lora_weights +
                                               "' is none of true, false, gaussian, orthogonal, olora, pissa, "
                                               "pissa_niter_N (such as pissa_niter_4)");
  const std::string& name = config.init_lora_weights;
  for_each_target(model, config, [&](const std::string& module, int64_t in, int64_t out) {
    const int64_t r = config.rank_of(module);
    if (start->kind == LoraStart::orthogonal && r % 2 != 0)
      throw ConfigError("init_lora_weights",
                        "orthogonal needs an even rank, and " + module + " has " + std::to_string(r));
    if (start->from_base() && r > std::min(in, out))
      throw ConfigError("init_lora_weights", name + " takes at most " + std::to_string(std::min(in, out)) +
                                                 " directions from " + module + ", and its rank is " +
                                                 std::to_string(r) + "; lower it");
  });
  if (!start->from_base()) return;
  if (config.use_dora)
    throw ConfigError("init_lora_weights", name + " does not go with use_dora, whose norms are those of the base");
  if (config.targets(embedding_module))
    throw ConfigError("init_lora_weights", name + " does not go with embed_tokens as a target");
}

std::string fingerprint_text(const ModelFiles& base) { return hash_digits(model_fingerprint(*base.weights)); }

std::string text_of(const std::optional<Quantization>& quantization) {
  return quantization ? name_of(*quantization) : "";
}

}  // namespace

std::vector<Shape> adapter_shapes(const ModelConfig& model, const LoraConfig& config) {
  std::vector<Shape> shapes;
  for_each_target(model, config, [&](const std::string& name, int64_t in, int64_t out) {
    const int64_t r = config.rank_of(name);
    shapes.push_back({r, in});
    shapes.push_back({out, r});
    if (config.use_dora) shapes.push_back({out});
  });
  for (int64_t layer = 0; layer < model.num_hidden_layers(); ++layer) add_expert_shapes(model, config, layer, shapes);
  if (config.targets(embedding_module)) {
    const int64_t r = config.rank_of(embedding_module);
    shapes.push_back({r, model.vocab_size});
    shapes.push_back({model.hidden_size, r});
  }
  for (size_t i = 0; i < config.modules_to_save.size(); ++i) shapes.push_back({model.vocab_size, model.hidden_size});
  return shapes;
}

void check_adapter_targets(const ModelConfig& model, const LoraConfig& config) {
  if (config.targets(output_module))
    throw ConfigError("lora_target_modules",
                      "lm_head cannot have LoRA: leave it out, or train it whole with lora_modules_to_save lm_head");
  const bool embedding = config.targets(embedding_module);
  if (embedding && saves(config, embedding_module))
    throw ConfigError("lora_modules_to_save", "embed_tokens is a target already; name it in one of the two");
  if (embedding && config.use_dora)
    throw ConfigError("use_dora",
                      "does not go with embed_tokens as a target: train it whole with "
                      "lora_modules_to_save embed_tokens, or leave DoRA out");
  check_expert_targets(model, config);
  bool any = embedding || !config.modules_to_save.empty() || !config.target_parameters.empty();
  for_each_target(model, config, [&](const std::string&, int64_t, int64_t) { any = true; });
  if (!any)
    throw ConfigError("lora_target_modules", "matches no linear of this model; its first is " + layer_prefix(0) +
                                                 layer_layout(model, 0).linears()[0].name);
}

void check_new_adapter(const ModelConfig& model, const LoraConfig& config) {
  check_adapter_targets(model, config);
  check_start(model, config);
}

void set_base(LoraConfig& config, const ModelFiles& base, const std::optional<Quantization>& quantization) {
  if (base.weights) config.base_fingerprint = fingerprint_text(base);
  config.base_quantization = text_of(quantization);
}

std::vector<std::string> adapter_warnings(const ModelFiles& base, const LoraConfig& config,
                                          const std::optional<Quantization>& quantization) {
  std::vector<std::string> modules{std::string(embedding_module)};
  for (int64_t layer = 0; layer < base.config.num_hidden_layers(); ++layer)
    for (const LinearShape& linear : layer_layout(base.config, layer).linears())
      modules.push_back(layer_prefix(layer) + linear.name);
  std::vector<std::string> warnings = config.without_effect(modules);
  if (config.base_fingerprint.empty()) return warnings;
  if (base.weights && config.base_fingerprint != fingerprint_text(base))
    warnings.push_back("the adapter was trained beside other weights than those of " + base.path.string() +
                       ": another model, or another form of the same one; its answers may be worse");
  const std::string held = text_of(quantization);
  const auto in_words = [](const std::string& name) { return name.empty() ? "the weights as they are" : name; };
  if (config.base_quantization != held)
    warnings.push_back("the adapter was trained beside " + in_words(config.base_quantization) +
                       ", and here is beside " + in_words(held) +
                       ": it makes up for no rounding but that of its training");
  return warnings;
}

}  // namespace lathe::nn
