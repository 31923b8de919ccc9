// Rows of a JSON Lines file as preference optimisation trains on them: a prompt with an answer that was chosen and one
// that was rejected. The token ids are those of TRL's DPOTrainer.
//
// Rows: {"prompt", "chosen", "rejected"}, all strings or all lists of messages; or {"chosen", "rejected"} alone, whose
// common beginning (characters of strings, whole messages) is the prompt. Beside chats also "tools" and
// "chat_template_kwargs". Completions of strings end with the EOS token.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/rows/sft_rows.h"
#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

// Whole sequences, prompt and completion; the prompt's labels are ignored_label. The completions begin where the tokens
// of the prompt and of either sequence first part, at the same place in both.
struct PreferenceExample {
  SftExample chosen, rejected;
};

// Names and defaults are TRL's, but for special_tokens_in_messages.
struct PreferenceOptions {
  std::optional<int64_t> max_length = 1024;  // of prompt and completion, each sequence by itself
  TruncationMode truncation_mode = TruncationMode::keep_start;
  std::optional<int64_t> vocab_size;  // of the model: rows with a token from it on are refused
  // As in SftOptions.
  SpecialTokens special_tokens_in_messages = SpecialTokens::as_text;
};

// What one row became.
struct PreparedPreference {
  PreferenceExample example;    // truncated
  std::string error;            // why it is no row: the rest is empty then
  std::string dropped_because;  // the prompt fills max_length, or both completions are the same
  bool truncated = false;
  bool boundary_moved = false;  // the completions do not begin where the prompt's tokens end
};

// Turns rows into pairs, one at a time. Any number of threads may use one.
class PreferenceRowReader {
 public:
  // All three must outlive the reader; `chat_template` may be null where no row is a chat. ConfigError for a max_length
  // below 2.
  PreferenceRowReader(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const PreferenceOptions& options);
  ~PreferenceRowReader();
  PreparedPreference read(std::string_view json) const;  // a line of JSON Lines

 private:
  struct Preparation;
  const PreferenceOptions& options_;
  std::unique_ptr<const Preparation> preparation_;
};

struct PreferenceRows {
  std::vector<PreferenceExample> examples;
  std::vector<int64_t> lines;       // of the file, from 1: where each example came from
  std::vector<DroppedRow> dropped;  // the prompt fills max_length, or both completions are the same
  std::vector<int64_t> truncated_lines;
  std::vector<std::string> warnings;  // each one sentence, with counts
};

// `chat_template` may be null where no row is a chat. Throws FormatError with file and line for a row that is not of a
// known shape, ConfigError where options and tokenizer do not fit.
PreferenceRows read_preference_rows(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                    const ChatTemplate* chat_template, const PreferenceOptions& options);

}  // namespace lathe::data
