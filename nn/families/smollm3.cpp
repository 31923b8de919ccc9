// SmolLM3: a Llama of whose layers every fourth does not turn q and k.
#include "core/error.h"
#include "core/json.h"
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {
namespace {

constexpr int64_t usual_interval = 4;

void set_interval(ModelConfig& model, int64_t interval) {
  for (int64_t i = 0; i < model.num_hidden_layers(); ++i)
    if ((i + 1) % interval == 0) model.layers[static_cast<size_t>(i)].rope = no_rope;
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' SmolLM3Config where config.json is silent.
  config.set_default("num_key_value_heads", 4);
  config.set_default("max_position_embeddings", 32768);
  config.set_default("rope_theta", 2000000.0);
  config.set_default("tie_word_embeddings", true);
  for (const char* key : {"use_sliding_window", "mlp_bias"})
    if (config.flag(key, false)) throw ConfigError(key, "true is not supported yet");
  ModelConfig result = read_hf_fields(config);
  const nlohmann::ordered_json* turned = config.find("no_rope_layers");  // 1 where a layer turns q and k
  if (turned == nullptr) {
    const int64_t interval = config.integer("no_rope_layer_interval", usual_interval);
    if (interval < 1) throw ConfigError("no_rope_layer_interval", "expected at least 1");
    set_interval(result, interval);
    return result;
  }
  if (!turned->is_array() || turned->size() != result.layers.size())
    throw ConfigError("no_rope_layers", "expected 0 or 1 for each layer, found " + json_excerpt(*turned));
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (json_integer((*turned)[i], "no_rope_layers", 0, 1, config.file()) == 0) result.layers[i].rope = no_rope;
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, smollm3_family);
  set_interval(result, usual_interval);  // the file does not say
  return result;
}

}  // namespace

constexpr Family smollm3_family{.name = "smollm3",
                                .hf_class = "SmolLM3ForCausalLM",
                                .gguf_architecture = "smollm3",
                                .from_hf = from_hf,
                                .from_gguf = from_gguf,
                                .gguf_names = usual_gguf_names,
                                .gguf_rotary_rows = GgufRotaryRows::interleaved};

}  // namespace lathe::nn
