// OLMo 3: an OLMo 2 of whose layers three of four have a sliding window, and a rotary table that nothing stretches.
#include "nn/families/family.h"
#include "nn/families/gguf_fields.h"
#include "nn/families/hf_fields.h"
#include "nn/families/olmo.h"
#include "nn/families/sliding_windows.h"

namespace lathe::nn {
namespace {

constexpr int64_t usual_pattern = 4;  // every fourth layer sees all
constexpr double usual_theta = 500000.0;
enum Rope : int64_t { full, sliding };

void slide(LayerConfig& layer, int64_t window) {
  layer.sliding_window = window;
  layer.rope = sliding;
}

// transformers 5 has a table for each type of layer; before, the scaling was that of the layers that see all.
std::vector<RopeConfig> ropes_of(const HfFields& config) {
  const HfFields each = config.object("rope_parameters");
  const HfFields stretched =
      each.find("full_attention") ? each.object("full_attention") : config.object("rope_scaling");
  const RopeDefaults defaults{config.number("rope_theta", usual_theta), config.integer("max_position_embeddings")};
  return {read_rope(stretched, defaults), read_rope(each.object("sliding_attention"), defaults)};
}

ModelConfig from_hf(const HfFields& given) {
  HfFields config = given;
  // transformers' Olmo3Config where config.json is silent.
  config.set_default("max_position_embeddings", 2048);
  config.set_default("rms_norm_eps", 1e-5);
  config.set_default("sliding_window", 4096);
  const std::vector<RopeConfig> ropes = ropes_of(config);
  config.set("rope_parameters", nullptr);  // read_hf_fields() knows one table for all layers
  config.set("rope_scaling", nullptr);
  ModelConfig result = read_hf_fields(config);
  set_olmo_norms(result);
  result.ropes = ropes;
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides_by_type(config, i).value_or((i + 1) % usual_pattern != 0))
      slide(result.layers[i], config.integer("sliding_window"));
  return result;
}

}  // namespace

ModelConfig olmo3_from_gguf(const std::shared_ptr<const GgufFile>& file) {
  ModelConfig result = read_gguf_fields(file, olmo3_family);
  set_olmo_norms(result);
  const std::string base = "olmo2.rope.freq_base_swa";
  result.ropes.push_back({.theta = file->contains(base) ? file->get_number(base) : result.ropes[full].theta});
  const std::vector<bool> slides = slides_by_gguf(*file, "olmo2", result.layers.size(), usual_pattern);
  const int64_t window = file->get_integer("olmo2.attention.sliding_window", 1, INT32_MAX);
  for (size_t i = 0; i < result.layers.size(); ++i)
    if (slides[i]) slide(result.layers[i], window);
  return result;
}

constexpr Family olmo3_family{.name = "olmo3",
                              .hf_class = "Olmo3ForCausalLM",
                              .gguf_architecture = "olmo2",
                              .from_hf = from_hf,
                              .from_gguf = nullptr,
                              .gguf_names = olmo_gguf_names,
                              .gguf_rotary_rows = GgufRotaryRows::half_split};

}  // namespace lathe::nn
