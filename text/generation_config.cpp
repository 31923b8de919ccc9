#include "text/generation_config.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace lathe::text {

GenerationConfig read_generation_config(const std::filesystem::path& directory) {
  GenerationConfig result;
  const std::filesystem::path path = directory / "generation_config.json";
  if (!std::filesystem::exists(path)) return result;
  const nlohmann::ordered_json config = read_json_file(path);
  if (!config.is_object()) throw FormatError(path.string(), -1, "expected a JSON object, found " + json_excerpt(config));
  const auto eos = config.find("eos_token_id");
  if (eos != config.end() && !eos->is_null()) {
    for (const auto& id : eos->is_array() ? *eos : nlohmann::ordered_json::array({*eos}))
      result.eos_token_ids.push_back(static_cast<int32_t>(json_integer(id, "eos_token_id", 0, INT32_MAX, path.string())));
  }
  for (const char* key : {"do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty",
                          "presence_penalty", "no_repeat_ngram_size", "max_length", "max_new_tokens"}) {
    const auto found = config.find(key);
    if (found != config.end() && !found->is_null()) result.sampling.emplace_back(key, json_excerpt(*found));
  }
  return result;
}

}  // namespace lathe::text
