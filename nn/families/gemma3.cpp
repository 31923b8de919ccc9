// Gemma 3 (text): a Gemma with q and k normed head by head, and five layers with a sliding window and a rotary table of
// their own to one that sees all.
#include "core/error.h"
#include "nn/families/gemma.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {
namespace {

constexpr int64_t usual_pattern = 6;  // every sixth layer sees all
constexpr double global_theta = 1000000.0, local_theta = 10000.0;
enum Rope : int64_t { global, local };

void slide(LayerConfig& layer, int64_t window) {
  layer.sliding_window = window;
  layer.rope = local;
}

// transformers 5 has a table for each type of layer; before, the scaling was that of the layers that see all.
std::vector<RopeConfig> ropes_of(const HfFields& config) {
  const HfFields each = config.object("rope_parameters");
  const double global_base = config.number("rope_theta", global_theta);
  const double local_base = config.number("rope_local_base_freq", local_theta);
  const HfFields full = each.find("full_attention") ? each.object("full_attention") : config.object("rope_scaling");
  const int64_t context = config.integer("max_position_embeddings");
  return {read_rope(full, {global_base, context}), read_rope(each.object("sliding_attention"), {local_base, context})};
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Gemma3TextConfig where config.json is silent.
  set_gemma_defaults(config);
  config.set_default("vocab_size", 262208);
  config.set_default("max_position_embeddings", 131072);
  if (config.find("attn_logit_softcapping") != nullptr)
    throw ConfigError("attn_logit_softcapping", "Gemma 3 computes none: leave it out");
  ModelConfig result = read_gemma_hf(config);
  result.qk_norm = QkNorm::per_head;
  result.ropes = ropes_of(config);
  const int64_t pattern = config.integer("sliding_window_pattern", usual_pattern);
  if (pattern < 1) throw ConfigError("sliding_window_pattern", "expected at least 1");
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides_by_type(config, i).value_or((static_cast<int64_t>(i) + 1) % pattern != 0))
      slide(result.layers[i], config.integer("sliding_window"));
  return result;
}

// The file's norms have the one added; older ones say neither the pattern nor the local table's base.
ModelConfig from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gemma_gguf(file, gemma3_family, 62);
  result.qk_norm = QkNorm::per_head;
  const std::string base = "gemma3.rope.freq_base_swa", cap = "gemma3.final_logit_softcapping";
  result.ropes.push_back({.theta = file->contains(base) ? file->get_number(base) : local_theta});
  if (file->contains(cap)) result.final_logit_softcapping = file->get_number(cap);
  const std::vector<bool> slides = slides_by_gguf(*file, "gemma3", result.layers.size(), usual_pattern);
  const int64_t window = file->get_integer("gemma3.attention.sliding_window", 1, INT32_MAX);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides[i]) slide(result.layers[i], window);
  return result;
}

}  // namespace

constexpr Family gemma3_family{.name = "gemma3_text",
                               .hf_class = "Gemma3ForCausalLM",
                               .gguf_architecture = "gemma3",
                               .from_hf = from_hf,
                               .from_gguf = from_gguf,
                               .gguf_names = gemma_gguf_names,
                               .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
