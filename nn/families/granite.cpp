// Granite 3.x, dense: a Llama with the factors of nn/families/granite.h.
#include "nn/families/granite.h"

#include <string>

#include "core/error.h"
#include "nn/families/gguf_fields.h"

namespace lathe::nn {

ModelConfig granite_from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' GraniteConfig and GraniteMoeConfig where config.json is silent.
  config.set_default("max_position_embeddings", 2048);
  ModelConfig result = read_hf_fields(config);
  result.embedding_scale = config.number("embedding_multiplier", 1);
  result.attention_multiplier = config.number("attention_multiplier", 1);
  result.residual_multiplier = config.number("residual_multiplier", 1);
  result.logits_scaling = config.number("logits_scaling", 1);
  return result;
}

ModelConfig granite_from_gguf(const std::shared_ptr<const GgufFile>& file, const Family& family) {
  ModelConfig result = read_gguf_fields(file, family);
  const auto set = [&](double& factor, const char* name) {
    const std::string key = std::string(family.gguf_architecture) + "." + name;
    if (file->contains(key)) factor = file->get_number(key);
  };
  set(result.embedding_scale, "embedding_scale");
  set(result.attention_multiplier, "attention.scale");
  set(result.residual_multiplier, "residual_scale");
  set(result.logits_scaling, "logit_scale");
  return result;
}

namespace {

ModelConfig from_hf(const HfFields& config) {
  if (config.flag("mlp_bias", false)) throw ConfigError("mlp_bias", "true is not supported yet");
  return granite_from_hf(config);
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) { return granite_from_gguf(file, granite_family); }

}  // namespace

constexpr Family granite_family{.name = "granite",
                                .hf_class = "GraniteForCausalLM",
                                .gguf_architecture = "granite",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = usual_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
