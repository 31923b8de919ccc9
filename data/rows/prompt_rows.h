// Rows of a JSON Lines file as prompts to be answered: {"prompt": string | messages, …}. Every other column is kept
// for whoever judges the answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

struct PromptRow {
  std::string file;
  int64_t line = 0;  // from 1
  // A text is tokenised with what the model expects around it, special tokens in it recognised; a chat by the template
  // up to where the assistant answers, special tokens in its messages being text.
  std::vector<int32_t> ids;
  nlohmann::ordered_json prompt;   // the text, or the messages
  nlohmann::ordered_json columns;  // the row's other columns, an object
  bool is_chat() const { return prompt.is_array(); }
};

// `chat_template` may be null where no prompt is a chat. `vocab_size` is the model's. FormatError with file and line
// for a row without a prompt, with an empty one, or with "completion" or "completion_ids", which are the answer's.
std::vector<PromptRow> read_prompt_rows(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                        const ChatTemplate* chat_template, int64_t vocab_size);

}  // namespace lathe::data
