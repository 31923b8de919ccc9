// Granite 3.x, dense: a Llama with a factor on the embedding, on attention's scores, on what each block adds and on the
// logits.
#include "core/error.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' GraniteConfig where config.json is silent.
  config.set_default("max_position_embeddings", 2048);
  if (config.flag("mlp_bias", false)) throw ConfigError("mlp_bias", "true is not supported yet");
  ModelConfig result = read_hf_fields(config);
  result.embedding_scale = config.number("embedding_multiplier", 1);
  result.attention_multiplier = config.number("attention_multiplier", 1);
  result.residual_multiplier = config.number("residual_multiplier", 1);
  result.logits_scaling = config.number("logits_scaling", 1);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, granite_family);
  const auto set = [&](double& factor, const std::string& key) {
    if (file->contains("granite." + key)) factor = file->get_number("granite." + key);
  };
  set(result.embedding_scale, "embedding_scale");
  set(result.attention_multiplier, "attention.scale");
  set(result.residual_multiplier, "residual_scale");
  set(result.logits_scaling, "logit_scale");
  return result;
}

}  // namespace

constexpr Family granite_family{.name = "granite",
                                .gguf_architecture = "granite",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = usual_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
