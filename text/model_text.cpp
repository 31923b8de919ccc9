#include "text/model_text.h"

#include <algorithm>

#include "core/error.h"
#include "core/json_value.h"
#include "text/generation_config.h"

namespace lathe::text {

std::vector<int32_t> ModelText::encode_chat(const nlohmann::ordered_json& messages) const {
  if (!chat_template) throw ConfigError("chat template", "the model has none");
  data::ChatOptions chat;
  chat.add_generation_prompt = true;
  chat.special_tokens = data::special_token_variables(*tokenizer);
  const data::RenderedChat rendered = chat_template->render_texts(messages, chat);
  return tokenizer->encode(rendered.text, rendered.control);
}

ModelText load_model_text(const nn::ModelFiles& files) {
  ModelText text;
  text.tokenizer = load_tokenizer(files);
  text.chat_template = data::ChatTemplate::of(*text.tokenizer);
  text.stop_token_ids = stop_tokens(files, *text.tokenizer);
  text.vocab_size = files.config.vocab_size;
  return text;
}

namespace {

// Control tokens with which the turns of chat families end. Files do not always name them: a fine-tuned model may end
// its turns with <|im_end|> under a config that still says <|endoftext|>.
constexpr std::string_view end_of_turn_names[] = {"<|im_end|>",
                                                  "<|eot_id|>",
                                                  "<|eom_id|>",
                                                  "<|end|>",
                                                  "<end_of_turn>",
                                                  "<|endoftext|>",
                                                  "<|end_of_text|>",
                                                  "<|end_of_turn|>",
                                                  "<end_of_utterance>",
                                                  "<｜end▁of▁sentence｜>",
                                                  "<EOT>",
                                                  "<|eot|>"};

}  // namespace

std::vector<int32_t> stop_tokens(const nn::ModelFiles& files, const data::Tokenizer& tokenizer) {
  std::vector<int32_t> ids = files.config.eos_token_ids;
  if (!files.gguf) {
    const std::vector<int32_t> more = read_generation_config(files.path).eos_token_ids;
    ids.insert(ids.end(), more.begin(), more.end());
  }
  for (const auto& id : {tokenizer.eos_id(), tokenizer.eot_id(), tokenizer.eom_id()})
    if (id) ids.push_back(*id);
  for (const std::string_view name : end_of_turn_names) {
    // Where <|return|> ends an answer (gpt-oss), <|end|> ends one of its messages.
    if (name == "<|end|>" && tokenizer.token_id("<|return|>")) continue;
    if (const auto id = tokenizer.token_id(name); id && tokenizer.is_special(*id)) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace lathe::text
