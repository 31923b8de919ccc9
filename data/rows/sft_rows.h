// Rows of a JSON Lines file as supervised fine-tuning trains on them, in TRL's order: format → EOS → tokenise →
// labels → truncate → drop rows without a trained label. Packing is in data/packing.
//
// Rows: {"text"} | {"messages": [{role, content}]} | {"prompt", "completion"} (strings or message lists) |
// {"conversations": [{from, value}]} | {"input_ids", labels?, completion_mask?, assistant_masks?}; beside chats also
// "tools" and "chat_template_kwargs".
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/readers/row_part.h"
#include "data/tokenizer/tokenizer.h"

namespace lathe::data {

inline constexpr int32_t ignored_label = -100;

struct SftExample {
  std::vector<int32_t> input_ids;
  std::vector<int32_t> labels;  // the same length, not shifted; ignored_label where nothing is trained
};

// Labels that are learnt: the first token is never predicted, so that its label does not count.
int64_t trained_tokens(const SftExample& example);

enum class TruncationMode { keep_start, keep_end };
enum class TooLong { truncate, error };

// Names and defaults are TRL's, but for too_long and special_tokens_in_messages.
struct SftOptions {
  std::string dataset_text_field = "text";
  std::optional<int64_t> max_length = 1024;
  TruncationMode truncation_mode = TruncationMode::keep_start;
  std::optional<bool> completion_only_loss;  // default: for rows of prompt and completion
  bool assistant_only_loss = false;
  bool packing = false;  // then neither truncated nor dropped here: packing does it
  TooLong too_long = TooLong::truncate;
  std::optional<int64_t> vocab_size;  // of the model: rows with a token from it on are refused
  // Whether "<|im_end|>" inside a message is that token (as in TRL) or text. Rows of plain text always are as in TRL.
  SpecialTokens special_tokens_in_messages = SpecialTokens::as_text;
};

// What one row became.
struct PreparedRow {
  SftExample example;           // truncated, unless packing does it
  std::string error;            // why it is no row: the rest is empty then
  std::string dropped_because;  // there is nothing in it to train on
  bool truncated = false;       // longer than max_length: cut here, or by packing
  bool boundary_moved = false;  // the completion does not begin where the prompt's tokens end
  bool completion_mask_ignored = false;
};

// Turns rows into examples, one at a time: what streams are made with. Any number of threads may use one.
class SftRowReader {
 public:
  // All three must outlive the reader; `chat_template` may be null where no row is a chat. ConfigError for options that
  // contradict each other.
  SftRowReader(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const SftOptions& options);
  ~SftRowReader();

  PreparedRow read(std::string_view json) const;       // a line of JSON Lines
  PreparedRow read_text(std::string_view text) const;  // a row that is its text

 private:
  struct Preparation;
  template <class Make>
  PreparedRow finished(Make make) const;
  const SftOptions& options_;
  std::unique_ptr<const Preparation> preparation_;
};

// How often something happened to rows that a user should know of, and where first.
struct SftRowCounts {
  int64_t truncated = 0, first_truncated_line = 0;
  int64_t dropped = 0, first_dropped_line = 0;
  std::string first_dropped_because;
  int64_t boundary_moved = 0, completion_mask_ignored = 0;

  void add(const PreparedRow& row, int64_t line);
  std::vector<std::string> warnings(const SftOptions& options) const;  // each one sentence
};

struct DroppedRow {
  int64_t line;  // from 1
  std::string reason;
};

struct SftRows {
  std::vector<SftExample> examples;
  std::vector<int64_t> lines;  // of the file, from 1: where each example came from
  std::vector<DroppedRow> dropped;
  std::vector<int64_t> truncated_lines;
  std::vector<std::string> warnings;  // each one sentence, with counts
};

// `chat_template` may be null where no row is a chat. Throws FormatError with file and line for a row that is not
// of a known shape, ConfigError where options and tokenizer do not fit. Rows of other parts are passed over.
SftRows read_sft_rows(const std::filesystem::path& file, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                      const SftOptions& options, RowPart part = {});

}  // namespace lathe::data
