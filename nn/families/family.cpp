#include "nn/families/family.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/nearest_name.h"
#include "nn/families/text_config.h"
#include "nn/layer_layout.h"
#include "nn/weights/key_head_rows.h"
#include "nn/weights/misplaced_file.h"

namespace lathe::nn {
namespace {

constexpr const Family* all_families[] = {
    &exaone4_family,        &gemma2_family,      &gemma3_family,    &gpt_oss_family,    &granite_family,
    &granite_hybrid_family, &granite_moe_family, &lfm2_family,      &lfm2_moe_family,   &llama_family,
    &ministral3_family,     &mistral_family,     &mixtral_family,   &olmo2_family,      &olmo3_family,
    &olmoe_family,          &phi3_family,        &qwen2_family,     &qwen2_moe_family,  &qwen3_5_family,
    &qwen3_5_moe_family,    &qwen3_family,       &qwen3_moe_family, &qwen3_next_family, &seed_oss_family,
    &smollm3_family};

// "expected one of …", by config.json's names or by GGUF's, and which of them is nearest to what was found.
std::string expected_one_of(std::string_view Family::*name, const std::string& found) {
  std::vector<std::string> names;
  std::string all;
  for (const Family* family : all_families) {
    const std::string own(family->*name);
    if (std::find(names.begin(), names.end(), own) != names.end()) continue;
    names.push_back(own);
    all += (all.empty() ? "" : ", ") + own;
  }
  const std::string nearest = nearest_name(found, names);
  return "expected one of " + all + ", found " + json_excerpt(found) +
         (nearest.empty() ? "" : ", to which " + nearest + " comes nearest");
}

const GgufName& gguf_names_of(const Family& family, const std::string& module) {
  for (const GgufName& name : family.gguf_names)
    if (name.module == module) return name;
  throw ConfigError("family", std::string(family.name) + " has no GGUF name for " + module);
}

std::string gguf_name(const Family& family, const std::string& module) {
  return std::string(gguf_names_of(family, module).gguf);
}

}  // namespace

const Family& family_named(const std::string& name) {
  for (const Family* family : all_families)
    if (family->name == name) return *family;
  throw ConfigError("family", expected_one_of(&Family::name, name));
}

const Family& family_of(const ModelConfig& config) { return family_named(config.family); }

ModelConfig read_hf_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  if (!std::filesystem::exists(path)) {
    const std::string instead = what_it_holds_instead(directory);
    throw ResourceError(path.string() + ": is not there; a model directory holds config.json" +
                        (instead.empty() ? "" : "; " + instead));
  }
  const nlohmann::ordered_json whole = read_json_file(path);
  const bool multimodal = is_multimodal(whole);
  const HfFields config(text_config(whole), path.string(), multimodal ? "text_config." : "");
  const std::string name = config.text("model_type", "");
  for (const Family* family : all_families) {
    if (family->name != name) continue;
    ModelConfig result = family->from_hf(config);
    result.multimodal = multimodal;
    result.check();
    return result;
  }
  throw ConfigError("model_type", expected_one_of(&Family::name, name) + ", in " + path.string());
}

namespace {

// Text models of multimodal ones, under an architecture of their own: where there are only texts they compute what
// these do.
std::string_view architecture_of_text(std::string_view architecture) {
  constexpr std::pair<std::string_view, std::string_view> same[] = {
      {"qwen2vl", "qwen2"}, {"qwen3vl", "qwen3"}, {"qwen3vlmoe", "qwen3moe"}};
  for (const auto& [multimodal, text] : same)
    if (architecture == multimodal) return text;
  return architecture;
}

}  // namespace

ModelConfig config_from_gguf(const std::shared_ptr<const GgufFile>& file) {
  const std::string architecture(architecture_of_text(file->get<std::string>("general.architecture")));
  for (const Family* family : all_families) {
    if (family->from_gguf == nullptr || family->gguf_architecture != architecture) continue;
    ModelConfig result = family->from_gguf(file);
    result.check();
    return result;
  }
  throw ConfigError("general.architecture",
                    expected_one_of(&Family::gguf_architecture, architecture) + ", in " + file->path().string());
}

size_t layer_count(const std::string& key, int64_t found) {
  if (found < 1 || found > 10000) throw ConfigError(key, "expected 1 to 10000 layers, found " + std::to_string(found));
  return static_cast<size_t>(found);
}

namespace {

// What a gated delta net has beside linears, norms and its convolution: no name in GGUF ends as such a vector's would.
void place_vectors(int64_t layer, GgufPlaces& places) {
  const std::string block = "blk." + std::to_string(layer) + ".", own = layer_prefix(layer) + "linear_attn.";
  places[block + "ssm_a"] = {.name = own + "A_log", .negative_exponential = true};
  places[block + "ssm_dt.bias"] = {own + "dt_bias"};
}

// q, k and v of all heads in one tensor, z in another. Files of llama.cpp's first converter have them as Hugging Face
// does.
void place_joined_projections(int64_t layer, GgufPlaces& places) {
  const std::string block = "blk." + std::to_string(layer) + ".", own = layer_prefix(layer);
  places[block + "attn_qkv.weight"] = {own + qkv_of_heads + ".weight"};
  places[block + "attn_gate.weight"] = {own + z_of_heads + ".weight"};
  places[block + "ssm_in.weight"] = {.name = own + qkvz_by_key_heads + ".weight", .older = true};
}

// What Mamba-2 has beside linears and its convolution: a number of each head is a matrix of one column there, and the
// norm goes by groups.
void place_mamba2(const ModelConfig& config, int64_t layer, GgufPlaces& places) {
  const kernels::Mamba2Heads& heads = config.mamba2.heads;
  const std::string block = "blk." + std::to_string(layer) + ".", own = layer_prefix(layer) + "mamba.";
  places[block + "ssm_a"] = {.name = own + "A_log", .negative_exponential = true, .vector_as = {heads.heads, 1}};
  places[block + "ssm_d"] = {.name = own + "D", .vector_as = {heads.heads, 1}};
  places[block + "ssm_dt.bias"] = {own + "dt_bias"};
  places.at(block + "ssm_norm.weight").vector_as = {heads.groups, heads.out_columns() / heads.groups};
}

// Of a linear of the feed-forward block that all tokens go through: where GGUF has its rows as two tensors, and where
// there are experts beside it, other names.
void place_shared(const Family& family, const LayerLayout& layer, int64_t index, GgufPlaces& places) {
  const std::string suffix = layer.router ? "_shexp.weight" : ".weight", block = "blk." + std::to_string(index) + ".";
  for (const LinearShape& linear : layer.feed_forward_linears()) {
    const GgufName& names = gguf_names_of(family, linear.name);
    const std::string whole = layer_prefix(index) + linear.name + ".weight";
    if (names.second_half.empty() && !layer.router) continue;
    if (std::string(names.gguf).ends_with("_shexp")) continue;
    places.erase(block + std::string(names.gguf) + ".weight");
    const bool halves = !names.second_half.empty();
    places[block + std::string(names.gguf) + suffix] = {
        .name = whole, .half = halves ? GgufPlace::Half::first : GgufPlace::Half::none};
    if (halves)
      places[block + std::string(names.second_half) + suffix] = {.name = whole, .half = GgufPlace::Half::second};
  }
}

// The value heads' rows, and the columns of what reads them, stand in another order there.
void tile_value_heads(const ModelConfig& config, int64_t layer, GgufPlaces& places) {
  const GatedDeltaConfig& delta = config.gated_delta;
  const HeadTiling heads{.key_heads = delta.heads.key_heads,
                         .per_key = delta.heads.value_heads / delta.heads.key_heads};
  HeadTiling rows = heads, behind_keys;
  rows.size = delta.heads.value_dim;
  behind_keys = rows;
  behind_keys.first = 2 * delta.heads.key_heads * delta.heads.key_dim;
  const std::string block = "blk." + std::to_string(layer) + ".";
  for (const char* name : {"attn_qkv.weight", "ssm_conv1d.weight"}) places.at(block + name).row_tiling = behind_keys;
  for (const char* name : {"ssm_beta.weight", "ssm_alpha.weight", "ssm_a", "ssm_dt.bias"})
    places.at(block + name).row_tiling = heads;
  places.at(block + "attn_gate.weight").row_tiling = rows;
  places.at(block + "ssm_out.weight").column_tiling = rows;
}

}  // namespace

GgufPlaces gguf_places(const ModelConfig& config) {
  const Family& family = family_of(config);
  const bool interleaved = family.gguf_rotary_rows == GgufRotaryRows::interleaved;
  GgufPlaces places = {{"token_embd.weight", {"model.embed_tokens.weight"}},
                       {std::string(family.gguf_final_norm) + ".weight", {config.names.final_norm + ".weight"}},
                       {"output.weight", {"lm_head.weight"}}};
  for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
    const LayerLayout layer = layer_layout(config, i);
    const auto place = [&](const std::string& module, const char* part, int64_t interleaved_heads) {
      places["blk." + std::to_string(i) + "." + gguf_name(family, module) + part] = {layer_prefix(i) + module + part,
                                                                                     interleaved_heads};
    };
    const auto heads_of = [&](const LinearShape& linear) -> int64_t {
      if (!interleaved || layer.qkv_proj.size() != 3) return 0;
      if (linear.name == layer.qkv_proj[0].name) return config.num_attention_heads;
      return linear.name == layer.qkv_proj[1].name ? config.num_key_value_heads : 0;
    };
    const auto place_experts = [&](LinearShape ExpertShape::*linear, const char* name) {
      for (const char* part : {".weight", ".bias"}) {
        if (part == std::string_view(".bias") && !config.experts.bias) continue;
        std::vector<std::string> parts;
        for (const ExpertShape& expert : layer.experts) parts.push_back(layer_prefix(i) + (expert.*linear).name + part);
        places["blk." + std::to_string(i) + "." + name + part] = {.name = {}, .parts = std::move(parts)};
      }
    };
    if (layer.router) {  // called the same in every architecture
      places["blk." + std::to_string(i) + ".ffn_gate_inp.weight"] = {layer_prefix(i) + layer.router->name + ".weight"};
      if (layer.choice_bias)
        places["blk." + std::to_string(i) + ".exp_probs_b.bias"] = {layer_prefix(i) + layer.choice_bias->name};
      if (layer.router->bias)
        places["blk." + std::to_string(i) + ".ffn_gate_inp.bias"] = {layer_prefix(i) + layer.router->name + ".bias"};
      place_experts(&ExpertShape::gate_proj, "ffn_gate_exps");
      place_experts(&ExpertShape::up_proj, "ffn_up_exps");
      place_experts(&ExpertShape::down_proj, "ffn_down_exps");
    }
    for (const NormShape& norm : layer.norms()) place(norm.name, ".weight", 0);
    if (layer.conv) {
      place(layer.conv->name, ".weight", 0);
      places["blk." + std::to_string(i) + "." + gguf_name(family, layer.conv->name) + ".weight"].without_middle = true;
      if (layer.conv->bias) place(layer.conv->name, ".bias", 0);
    }
    if (layer.delta_out_proj) place_vectors(i, places);
    if (layer.sinks) places["blk." + std::to_string(i) + ".attn_sinks.weight"] = {layer_prefix(i) + layer.sinks->name};
    for (const LinearShape& linear : layer.linears()) {
      if (linear.name == qkvz_by_key_heads) {
        place_joined_projections(i, places);
        continue;
      }
      place(linear.name, ".weight", heads_of(linear));
      if (linear.bias) place(linear.name, ".bias", heads_of(linear));
    }
    if (layer.delta_out_proj && !config.gated_delta.joined_projections) tile_value_heads(config, i, places);
    if (layer.mamba_norm) place_mamba2(config, i, places);
    place_shared(family, layer, i, places);
    if (layer.shared_gate)
      places["blk." + std::to_string(i) + "." + gguf_name(family, layer.shared_gate->name) + ".weight"].without_first =
          true;
  }
  return places;
}

}  // namespace lathe::nn
