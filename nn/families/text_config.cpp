#include "nn/families/text_config.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace lathe::nn {
namespace {

using nlohmann::ordered_json;

struct Multimodal {
  std::string_view model_type;
  std::string_view text_type;  // where its text_config has none
  bool tied;                   // where neither says so: transformers' default
};
constexpr Multimodal multimodal[] = {{"gemma3", "gemma3_text", true},    {"idefics3", "llama", false},
                                     {"internvl", "qwen2", true},        {"lfm2_vl", "lfm2", true},
                                     {"llava", "llama", false},          {"llava_next", "llama", false},
                                     {"mistral3", "mistral", true},      {"qwen2_5_vl", "qwen2", false},
                                     {"qwen2_vl", "qwen2", false},       {"qwen3_5_moe", "qwen3_5_moe_text", false},
                                     {"qwen3_5", "qwen3_5_text", false}, {"qwen3_vl", "qwen3", false},
                                     {"smolvlm", "llama", false}};

// Text models under a name of their own that compute what a family does: positions in pictures have three numbers
// (mrope), which in a text are the same.
struct Alias {
  std::string_view name, family;
};
constexpr Alias aliases[] = {{"qwen2_5_vl_text", "qwen2"}, {"qwen2_vl_text", "qwen2"}, {"qwen3_vl_text", "qwen3"}};

std::string text_of(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

const Multimodal* kind_of(const ordered_json& config) {
  const std::string type = text_of(config, "model_type");
  const auto* const found = std::ranges::find(multimodal, type, &Multimodal::model_type);
  return found == std::ranges::end(multimodal) ? nullptr : &*found;
}

const ordered_json* found_in(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string family_name(const Multimodal& kind, const ordered_json& text) {
  const std::string type = text_of(text, "model_type");
  if (type.empty() || type == kind.model_type) return std::string(kind.text_type);
  const auto* const alias = std::ranges::find(aliases, type, &Alias::name);
  return alias == std::ranges::end(aliases) ? type : std::string(alias->family);
}

// Either may say it. Where they differ transformers ties, and where the file has an output of its own uses that.
bool is_tied(const Multimodal& kind, const ordered_json& whole, const ordered_json& text) {
  const char* const key = "tie_word_embeddings";
  const ordered_json *by_whole = found_in(whole, key), *by_text = found_in(text, key);
  const auto says = [](const ordered_json* value) { return value != nullptr && *value == ordered_json(true); };
  return says(by_whole) || says(by_text) || (by_whole == nullptr && by_text == nullptr && kind.tied);
}

// LLaVA's leave out of text_config what is as LlamaConfig's and MistralConfig's defaults have it.
void set_extents(ordered_json& text) {
  const std::string family = text_of(text, "model_type");
  if (family != "llama" && family != "mistral") return;
  const bool llama = family == "llama";
  for (const auto& [key, value] : {std::pair{"vocab_size", 32000},
                                   {"hidden_size", 4096},
                                   {"intermediate_size", llama ? 11008 : 14336},
                                   {"num_hidden_layers", 32},
                                   {"num_attention_heads", 32},
                                   {"max_position_embeddings", llama ? 2048 : 131072}})
    if (!text.contains(key)) text[key] = value;
}

// A text's rotary tables are the plain ones.
void leave_out_mrope(ordered_json& text) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const auto found = text.find(key);
    if (found == text.end() || !found->is_object()) continue;
    for (const char* own : {"mrope_section", "mrope_interleaved"}) found->erase(own);
    for (const char* type : {"rope_type", "type"})
      if (text_of(*found, type) == "mrope") (*found)[type] = "default";
  }
}

}  // namespace

bool is_multimodal(const ordered_json& config) { return config.is_object() && kind_of(config) != nullptr; }

ordered_json text_config(const ordered_json& config) {
  if (!is_multimodal(config)) return config;
  const Multimodal& kind = *kind_of(config);
  const ordered_json* const within = found_in(config, "text_config");
  if (within != nullptr && !within->is_object()) return *within;  // for the reader to refuse
  ordered_json text = within != nullptr ? *within : config;
  text.erase("vision_config");
  for (const char* key : {"torch_dtype", "dtype", "bos_token_id", "eos_token_id", "pad_token_id",
                          "transformers_version", "quantization_config"})
    if (found_in(text, key) == nullptr && found_in(config, key) != nullptr) text[key] = config[key];
  text["tie_word_embeddings"] = is_tied(kind, config, text);
  text["model_type"] = family_name(kind, text);
  set_extents(text);
  leave_out_mrope(text);
  return text;
}

const ordered_json* quantization_config(const ordered_json& config) {
  if (!config.is_object()) return nullptr;
  for (const char* key : {"quantization_config", "compression_config"})
    if (const ordered_json* const found = found_in(config, key)) return found;
  const ordered_json* const text = found_in(config, "text_config");
  return text != nullptr && text->is_object() ? found_in(*text, "quantization_config") : nullptr;
}

}  // namespace lathe::nn
