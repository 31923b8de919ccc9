#include "text/generation_config.h"

#include "nn/families/hf_fields.h"

namespace lathe::text {

GenerationConfig read_generation_config(const std::filesystem::path& directory) {
  GenerationConfig result;
  const std::filesystem::path path = directory / "generation_config.json";
  if (!std::filesystem::exists(path)) return result;
  const nn::HfFields config = nn::HfFields::read(path);
  result.eos_token_ids = config.token_ids("eos_token_id");
  for (const char* key : {"do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty",
                          "presence_penalty", "no_repeat_ngram_size", "max_length", "max_new_tokens"}) {
    if (const nlohmann::ordered_json* found = config.find(key)) result.sampling[key] = *found;
  }
  return result;
}

}  // namespace lathe::text
