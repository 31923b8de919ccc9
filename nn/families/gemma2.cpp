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
  set_gemma_defaults(config);
  config.set_default("vocab_size", 256000);
  config.set_default("max_position_embeddings", 8192);
  config.set_default("attn_logit_softcapping", 50.0);
  config.set_default("final_logit_softcapping", 30.0);
  // Old files name both; the one below is what counts.
  config.set("hidden_act", "gelu_pytorch_tanh");
  ModelConfig result = read_gemma_hf(config);
  result.attn_logit_softcapping = config.number("attn_logit_softcapping", 0);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides_by_type(config, i).value_or(slides(i)))
      result.layers[i].sliding_window = config.integer("sliding_window", 0);
  return result;
}

ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gemma_gguf(file, gemma2_family, 46);
  result.attn_logit_softcapping = file->get_number("gemma2.attn_logit_softcapping");
  result.final_logit_softcapping = file->get_number("gemma2.final_logit_softcapping");
  const int64_t window = file->get_integer("gemma2.attention.sliding_window", 1, INT32_MAX);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides(i)) result.layers[i].sliding_window = window;
  return result;
}

}  // namespace

constexpr Family gemma2_family{.name = "gemma2",
                               .hf_class = "Gemma2ForCausalLM",
                               .gguf_architecture = "gemma2",
                               .from_hf = from_hf,
                               .from_gguf = from_gguf,
                               .gguf_names = gemma_gguf_names,
                               .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
