#include "data/rows/preference_rows.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/thread_pool.h"
#include "data/rows/chat_rows.h"
#include "data/rows/json_lines.h"
#include "data/rows/row_fields.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

// What one row became. An error keeps its text: rows are prepared in parallel, and the first in the file is reported.
struct PreparedPair {
  std::vector<int32_t> chosen, rejected;  // whole sequences, not truncated
  size_t prompt_length = 0;               // tokens
  std::string error;
  bool boundary_moved = false;  // the completions do not begin where the prompt's tokens end
};

size_t common_length(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

// The bytes of the common beginning: TRL's rule, by characters. The last character never belongs to it, nor a space in
// front of where the strings part.
size_t common_beginning(const std::string& chosen, const std::string& rejected) {
  const auto continues = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; };
  const std::string& shorter = chosen.size() <= rejected.size() ? chosen : rejected;
  size_t at = 0;
  while (at < shorter.size() && chosen[at] == rejected[at]) ++at;
  const bool parted = at < shorter.size();
  if (!parted && at > 0) --at;  // one goes on where the other ends
  while (at > 0 && at < shorter.size() && continues(shorter[at])) --at;
  if (parted && at > 0 && chosen[at - 1] == ' ') --at;
  return at;
}

// The object's members in one order, for comparison.
bool same_message(const ordered_json& a, const ordered_json& b) { return nlohmann::json(a) == nlohmann::json(b); }

// Messages that both begin with; the last of either is an answer.
size_t common_messages(const ordered_json& chosen, const ordered_json& rejected) {
  const size_t most = std::min(chosen.size(), rejected.size()) - 1;
  size_t count = 0;
  while (count < most && same_message(chosen[count], rejected[count])) ++count;
  return count;
}

ordered_json joined(ordered_json messages, const ordered_json& more) {
  for (const ordered_json& message : more) messages.push_back(message);
  return messages;
}

// Turns rows into sequences. Used by many threads at once.
class RowPreparation {
 public:
  RowPreparation(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const PreferenceOptions& options)
      : tokenizer_(tokenizer),
        chat_template_(chat_template),
        options_(options),
        token_variables_(special_token_variables(tokenizer)) {}

  PreparedPair prepare(const ordered_json& row) const {
    for (const char* field : {"chosen", "rejected"})
      if (!row.contains(field)) throw Error(std::string("has no \"") + field + "\"" + fields_of(row));
    const bool chat = row.at("chosen").is_array();
    if (row.at("rejected").is_array() != chat)
      throw Error("\"chosen\" and \"rejected\" must both be strings or both be lists of messages");
    if (row.contains("prompt") && row.at("prompt").is_array() != chat)
      throw Error(chat ? "\"prompt\" must be a list of messages as \"chosen\" and \"rejected\" are; where they hold "
                         "the whole conversation, leave \"prompt\" out"
                       : "\"prompt\" must be a string as \"chosen\" and \"rejected\" are");
    PreparedPair prepared = chat ? prepare_chat(row) : prepare_strings(row);
    if (options_.vocab_size)
      for (const auto* ids : {&prepared.chosen, &prepared.rejected})
        expect_in_vocabulary(*ids, tokenizer_, *options_.vocab_size);
    return prepared;
  }

 private:
  static std::string fields_of(const ordered_json& row) {
    std::string fields;
    for (const auto& [key, value] : row.items()) fields += (fields.empty() ? "\"" : ", \"") + key.substr(0, 40) + "\"";
    return "; its fields are " + (fields.empty() ? "none" : fields.substr(0, 300));
  }

  PreparedPair prepare_strings(const ordered_json& row) const {
    std::string prompt, chosen = string_of(row, "chosen"), rejected = string_of(row, "rejected");
    if (row.contains("prompt")) {
      prompt = string_of(row, "prompt");
    } else {
      const size_t length = common_beginning(chosen, rejected);
      if (length == 0)
        throw Error("has no \"prompt\", and \"chosen\" and \"rejected\" have no beginning in common that could be it");
      prompt = chosen.substr(0, length);
      chosen.erase(0, length);
      rejected.erase(0, length);
    }
    const auto encode = [&](const std::string& text) {
      return tokenizer_.encode(text, SpecialTokens::recognise, SequenceTokens::add);
    };
    return parted(encode(prompt), encode(prompt + with_eos(std::move(chosen), tokenizer_)),
                  encode(prompt + with_eos(std::move(rejected), tokenizer_)));
  }

  PreparedPair prepare_chat(const ordered_json& row) const {
    ordered_json chosen = messages_of(row, "chosen"), rejected = messages_of(row, "rejected"), prompt;
    if (row.contains("prompt")) {
      prompt = messages_of(row, "prompt");
      chosen = joined(prompt, chosen);
      rejected = joined(prompt, rejected);
    } else {
      const auto length = static_cast<std::ptrdiff_t>(common_messages(chosen, rejected));
      if (length == 0)
        throw Error(
            "has no \"prompt\", and \"chosen\" and \"rejected\" have no first message in common that could be "
            "it");
      prompt = ordered_json(chosen.begin(), chosen.begin() + length);
    }
    return parted(encode_chat(row, prompt, true), encode_chat(row, chosen, false), encode_chat(row, rejected, false));
  }

  std::vector<int32_t> encode_chat(const ordered_json& row, const ordered_json& messages,
                                   bool add_generation_prompt) const {
    const RenderedChat chat = render_row(row, messages, chat_template_, token_variables_, add_generation_prompt);
    if (options_.special_tokens_in_messages == SpecialTokens::as_text)
      return tokenizer_.encode(chat.text, chat.control);
    const TextRange everything{0, chat.text.size()};
    return tokenizer_.encode(chat.text, std::span(&everything, 1));
  }

  // Tokens may merge across the border: the completions begin at the first id that differs from the prompt's own.
  static PreparedPair parted(const std::vector<int32_t>& prompt, std::vector<int32_t> chosen,
                             std::vector<int32_t> rejected) {
    PreparedPair prepared;
    prepared.prompt_length = std::min(common_length(prompt, chosen), common_length(prompt, rejected));
    prepared.boundary_moved = prepared.prompt_length < prompt.size();
    prepared.chosen = std::move(chosen);
    prepared.rejected = std::move(rejected);
    return prepared;
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_template_;
  const PreferenceOptions& options_;
  std::map<std::string, std::string> token_variables_;
};

SftExample example_of(std::vector<int32_t> ids, size_t prompt_length, const PreferenceOptions& options) {
  SftExample example{ids, std::move(ids)};
  std::fill_n(example.labels.begin(), std::min(prompt_length, example.labels.size()), ignored_label);
  if (!options.max_length || std::ssize(example.input_ids) <= *options.max_length) return example;
  for (auto* values : {&example.input_ids, &example.labels}) {
    if (options.truncation_mode == TruncationMode::keep_end)
      values->erase(values->begin(), values->end() - static_cast<std::ptrdiff_t>(*options.max_length));
    values->resize(static_cast<size_t>(*options.max_length));
  }
  return example;
}

std::string count_of(size_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

// In parallel. FormatError with the first bad row of the file.
std::vector<PreparedPair> prepare_all(const JsonLines& lines, const RowPreparation& preparation) {
  std::vector<PreparedPair> prepared(static_cast<size_t>(lines.size()));
  parallel_for(lines.size(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      try {
        prepared[static_cast<size_t>(row)] = preparation.prepare(lines.parse(row));
      } catch (const std::exception& error) {
        prepared[static_cast<size_t>(row)].error = error.what();
      }
    }
  });
  const auto fails = [](const PreparedPair& row) { return !row.error.empty(); };
  const auto failed = std::find_if(prepared.begin(), prepared.end(), fails);
  if (failed == prepared.end()) return prepared;
  const auto others = static_cast<size_t>(std::count_if(failed + 1, prepared.end(), fails));
  throw FormatError(lines.file(), -1,
                    "line " + std::to_string(lines.line(failed - prepared.begin())) + ": " + failed->error +
                        (others > 0 ? " (and " + count_of(others, "more row") + " with errors)" : ""));
}

void warn(PreferenceRows& rows, size_t moved, const PreferenceOptions& options) {
  if (!rows.truncated_lines.empty())
    rows.warnings.push_back(count_of(rows.truncated_lines.size(), "row") + " longer than max_length " +
                            std::to_string(options.max_length.value_or(0)) + " truncated, the first in line " +
                            std::to_string(rows.truncated_lines[0]));
  if (!rows.dropped.empty())
    rows.warnings.push_back(count_of(rows.dropped.size(), "row") + " dropped, the first in line " +
                            std::to_string(rows.dropped[0].line) + ": " + rows.dropped[0].reason);
  if (moved > 0)
    rows.warnings.push_back("in " + count_of(moved, "row") +
                            " the prompt's last tokens change when a completion follows; the completions are taken to "
                            "begin where they part");
}

}  // namespace

PreferenceRows read_preference_rows(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                    const ChatTemplate* chat_template, const PreferenceOptions& options) {
  if (options.max_length && *options.max_length < 2) throw ConfigError("max_length", "must be at least 2");
  const JsonLines lines = JsonLines::open(file);
  if (lines.size() == 0) throw FormatError(lines.file(), -1, "there is no row in it");
  std::vector<PreparedPair> prepared = prepare_all(lines, RowPreparation(tokenizer, chat_template, options));

  PreferenceRows rows;
  size_t moved = 0;
  const bool keeps_start = options.truncation_mode == TruncationMode::keep_start;
  for (int64_t i = 0; i < lines.size(); ++i) {
    PreparedPair& row = prepared[static_cast<size_t>(i)];
    const int64_t line = lines.line(i);
    const auto longest = std::max(std::ssize(row.chosen), std::ssize(row.rejected));
    const bool same = row.chosen == row.rejected;
    moved += row.boundary_moved;
    if (options.max_length && keeps_start && std::ssize(row.chosen) > 0 &&
        static_cast<int64_t>(row.prompt_length) >= *options.max_length) {
      rows.dropped.push_back({line, "its prompt alone has " + std::to_string(row.prompt_length) +
                                        " tokens, which fill max_length " + std::to_string(*options.max_length)});
      continue;
    }
    PreferenceExample example{example_of(std::move(row.chosen), row.prompt_length, options),
                              example_of(std::move(row.rejected), row.prompt_length, options)};
    if (example.chosen.input_ids == example.rejected.input_ids) {
      rows.dropped.push_back({line, same ? "\"chosen\" and \"rejected\" are the same"
                                         : "\"chosen\" and \"rejected\" are the same within max_length"});
      continue;
    }
    if (trained_tokens(example.chosen) == 0 || trained_tokens(example.rejected) == 0) {
      rows.dropped.push_back({line, "a completion has no token after the first of the sequence"});
      continue;
    }
    if (options.max_length && longest > *options.max_length) rows.truncated_lines.push_back(line);
    rows.examples.push_back(std::move(example));
    rows.lines.push_back(line);
  }
  warn(rows, moved, options);
  return rows;
}

}  // namespace lathe::data
