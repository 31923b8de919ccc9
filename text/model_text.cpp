#include "text/model_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace lathe::text {

std::vector<int32_t> ModelText::encode_chat(const nlohmann::ordered_json& messages) const {
  if (!chat_template) throw ConfigError("chat template", "the model has none");
  data::ChatOptions chat;
  chat.add_generation_prompt = true;
  chat.special_tokens = data::special_token_variables(*tokenizer);
  const data::RenderedChat rendered = chat_template->render(messages, chat);
  return tokenizer->encode(rendered.text, rendered.control);
}

ModelText load_model_text(const nn::ModelFiles& files) {
  ModelText text;
  text.tokenizer = load_tokenizer(files);
  text.chat_template = data::ChatTemplate::of(*text.tokenizer);
  text.stop_token_ids = stop_tokens(files.config, *text.tokenizer);
  return text;
}

std::vector<int32_t> stop_tokens(const nn::ModelConfig& config, const data::Tokenizer& tokenizer) {
  std::vector<int32_t> ids = config.eos_token_ids;
  for (const auto& id : {tokenizer.eos_id(), tokenizer.eot_id()})
    if (id) ids.push_back(*id);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace lathe::text
