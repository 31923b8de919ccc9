#include "nn/families/gemma.h"

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"

namespace lathe::nn {

namespace {

void set_gemma(ModelConfig& model) {
  model.activation = Activation::gelu_tanh;
  model.norm_placement = NormPlacement::before_and_after;
  model.embedding_scale = std::sqrt(static_cast<double>(model.hidden_size));
}

}  // namespace

void set_gemma_defaults(HfFields& config) {
  for (const auto& [key, value] : {std::pair{"hidden_size", 2304},
                                   {"intermediate_size", 9216},
                                   {"num_hidden_layers", 26},
                                   {"num_attention_heads", 8},
                                   {"num_key_value_heads", 4},
                                   {"head_dim", 256},
                                   {"sliding_window", 4096},
                                   {"query_pre_attn_scalar", 256}})
    config.set_default(key, value);
  config.set_default("tie_word_embeddings", true);
}

ModelConfig read_gemma_hf(const HfFields& config) {
  if (config.flag("use_bidirectional_attention", false))
    throw ConfigError("use_bidirectional_attention", "true is not supported: text is read from left to right");
  const std::string activation = config.text("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh")
    throw ConfigError("hidden_activation", "expected gelu_pytorch_tanh, found " + json_excerpt(activation));
  ModelConfig result = read_hf_fields(config);
  set_gemma(result);
  result.norm_weight_offset = 1;
  result.query_pre_attn_scalar = config.number("query_pre_attn_scalar");
  result.final_logit_softcapping = config.number("final_logit_softcapping", 0);
  return result;
}

ModelConfig read_gemma_gguf(const std::shared_ptr<const GgufFile>& file, const Family& family, int64_t layers_of_27b) {
  ModelConfig result = read_gguf_fields(file, family);
  set_gemma(result);
  if (result.num_hidden_layers() == layers_of_27b)
    result.query_pre_attn_scalar =
        static_cast<double>(result.hidden_size) / static_cast<double>(result.num_attention_heads);
  return result;
}

}  // namespace lathe::nn
