// An adapter on a model, beside what its linears hold of it (nn/linear.h): its configuration, what it does to the
// embedding, and the modules that it has whole.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nn/config.h"
#include "nn/linear.h"
#include "nn/model_files.h"
#include "nn/quantization.h"
#include "nn/weights/peft.h"

namespace lathe::nn {

struct Adapter {
  LoraConfig config;
  std::optional<LoraLayer> embedding;      // a [r, vocab], b [hidden, r]
  std::map<std::string, Parameter> saved;  // by full name: weights [vocab, hidden] in place of the base's
  const Parameter* saved_module(std::string_view name) const {
    const auto found = saved.find(std::string(name));
    return found == saved.end() ? nullptr : &found->second;
  }
};

// The shapes of what such an adapter of a model trains, in the order of Transformer::trainable_parameters.
std::vector<Shape> adapter_shapes(const ModelConfig& model, const LoraConfig& config);

// ConfigError for what no adapter of the model may target or keep whole: the output embedding as a target, the
// embedding as both, DoRA on it, and a configuration that targets nothing.
void check_adapter_targets(const ModelConfig& model, const LoraConfig& config);

// That, and ConfigError for an init_lora_weights that such an adapter cannot begin as.
void check_new_adapter(const ModelConfig& model, const LoraConfig& config);

// Notes in the configuration what it is trained beside: these weights (where they are open), held so.
void set_base(LoraConfig& config, const ModelFiles& base, const std::optional<Quantization>& quantization);

// Sentences for the user: the base is not the one that the adapter was trained beside, or is held otherwise; a pattern
// of its configuration matches nothing.
std::vector<std::string> adapter_warnings(const ModelFiles& base, const LoraConfig& config,
                                          const std::optional<Quantization>& quantization);

}  // namespace lathe::nn
