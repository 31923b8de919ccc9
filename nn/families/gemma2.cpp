// Gemma 2: a Gemma whose attention's scores and logits are capped, and of whose layers every other one, from the first,
// has a sliding window.
#include "core/error.h"
#include "nn/families/gemma.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {
namespace {

bool slides(size_t layer) { return layer % 2 == 0; }

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Gemma2Config where config.json is silent.
  for (const auto& [key, value] : {std::pair{"vocab_size", 256000},
                                   {"hidden_size", 2304},
                                   {"intermediate_size", 9216},
                                   {"num_hidden_layers", 26},
                                   {"num_attention_heads", 8},
                                   {"num_key_value_heads", 4},
                                   {"head_dim", 256},
                                   {"max_position_embeddings", 8192},
                                   {"sliding_window", 4096},
                                   {"query_pre_attn_scalar", 256}})
    config.set_default(key, value);
  config.set_default("tie_word_embeddings", true);
  config.set_default("attn_logit_softcapping", 50.0);
  config.set_default("final_logit_softcapping", 30.0);
  check_gemma(config);
  // Old files name both; the one below is what counts.
  config.set("hidden_act", "gelu_pytorch_tanh");
  ModelConfig result = read_hf_fields(config);
  set_gemma(result);
  result.norm_weight_offset = 1;
  result.query_pre_attn_scalar = config.number("query_pre_attn_scalar");
  result.attn_logit_softcapping = config.number("attn_logit_softcapping", 0);
  result.final_logit_softcapping = config.number("final_logit_softcapping", 0);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides_by_type(config, i).value_or(slides(i)))
      result.layers[i].sliding_window = config.integer("sliding_window", 0);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  constexpr int64_t layers_of_27b = 46;  // by which llama.cpp knows it, too: its scores have a divisor of their own
  ModelConfig result = read_gguf_fields(file, gemma2_family);
  set_gemma(result);
  if (result.num_hidden_layers() == layers_of_27b)
    result.query_pre_attn_scalar =
        static_cast<double>(result.hidden_size) / static_cast<double>(result.num_attention_heads);
  result.attn_logit_softcapping = file->get_number("gemma2.attn_logit_softcapping");
  result.final_logit_softcapping = file->get_number("gemma2.final_logit_softcapping");
  const int64_t window = file->get_integer("gemma2.attention.sliding_window", 1, INT32_MAX);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides(i)) result.layers[i].sliding_window = window;
  return result;
}

}  // namespace

constexpr Family gemma2_family{.name = "gemma2",
                               .gguf_architecture = "gemma2",
                               .from_hf = from_hf,
                               .from_gguf = from_gguf,
                               .gguf_names = gemma_gguf_names,
                               .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
