// Rows of a JSON Lines file as prompts to be answered: {"prompt": string | messages, …}. Every other column is kept
// for whoever judges the answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json_value.h"
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

// Turns rows into prompts, one at a time. Any number of threads may use one.
class PromptRowReader {
 public:
  // All must outlive the reader; `chat_template` may be null where no prompt is a chat. `vocab_size` is the model's.
  PromptRowReader(const Tokenizer& tokenizer, const ChatTemplate* chat_template, int64_t vocab_size);
  ~PromptRowReader();
  // A line of JSON Lines; its place is the caller's to fill in. Error with the reason for a row without a prompt, with
  // an empty one, or with "completion" or "completion_ids", which are the answer's.
  PromptRow read(std::string_view json) const;

 private:
  struct Preparation;
  std::unique_ptr<const Preparation> preparation_;
};

// All of a row but its ids as text that is JSON, and back. FormatError with `file` for text that prompt_text() has not
// written.
std::string prompt_text(const PromptRow& row);
PromptRow prompt_row(std::vector<int32_t> ids, std::string_view text, const std::string& file);

// FormatError with file and line for what PromptRowReader refuses.
std::vector<PromptRow> read_prompt_rows(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                        const ChatTemplate* chat_template, int64_t vocab_size);

}  // namespace lathe::data
