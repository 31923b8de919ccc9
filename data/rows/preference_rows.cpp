#include "data/rows/preference_rows.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "data/rows/chat_rows.h"
#include "data/rows/json_lines.h"
#include "data/rows/row_fields.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

// A row as tokens.
struct TokenPair {
  std::vector<int32_t> chosen, rejected;  // whole sequences, not truncated
  size_t prompt_length = 0;               // tokens
  bool boundary_moved = false;
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
class PairPreparation {
 public:
  PairPreparation(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const PreferenceOptions& options)
      : tokenizer_(tokenizer),
        chat_template_(chat_template),
        options_(options),
        token_variables_(special_token_variables(tokenizer)) {}

  TokenPair prepare(const ordered_json& row) const {
    for (const char* field : {"chosen", "rejected"})
      if (!row.contains(field)) throw Error(std::string("has no \"") + field + "\"" + fields_of(row));
    const bool chat = row.at("chosen").is_array();
    if (row.at("rejected").is_array() != chat)
      throw Error("\"chosen\" and \"rejected\" must both be strings or both be lists of messages");
    if (row.contains("prompt") && row.at("prompt").is_array() != chat)
      throw Error(chat ? "\"prompt\" must be a list of messages as \"chosen\" and \"rejected\" are; where they hold "
                         "the whole conversation, leave \"prompt\" out"
                       : "\"prompt\" must be a string as \"chosen\" and \"rejected\" are");
    TokenPair prepared = chat ? prepare_chat(row) : prepare_strings(row);
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

  TokenPair prepare_strings(const ordered_json& row) const {
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

  TokenPair prepare_chat(const ordered_json& row) const {
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
  static TokenPair parted(const std::vector<int32_t>& prompt, std::vector<int32_t> chosen,
                          std::vector<int32_t> rejected) {
    TokenPair prepared;
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

struct PreferenceRowReader::Preparation {
  PairPreparation rows;
};

PreferenceRowReader::PreferenceRowReader(const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                                         const PreferenceOptions& options)
    : options_(options), preparation_(new Preparation{PairPreparation(tokenizer, chat_template, options)}) {
  if (options.max_length && *options.max_length < 2) throw ConfigError("max_length", "must be at least 2");
}
PreferenceRowReader::~PreferenceRowReader() = default;

PreparedPreference PreferenceRowReader::read(std::string_view json) const {
  PreparedPreference row;
  TokenPair pair;
  try {
    const JsonRow parsed(json);
    pair = preparation_->rows.prepare(parsed.object());
  } catch (const std::bad_alloc&) {
    throw;  // the row is not at fault
  } catch (const std::exception& error) {
    row.error = error.what();
    return row;
  }
  row.boundary_moved = pair.boundary_moved;
  if (options_.max_length && options_.truncation_mode == TruncationMode::keep_start && !pair.chosen.empty() &&
      static_cast<int64_t>(pair.prompt_length) >= *options_.max_length) {
    row.dropped_because = "its prompt alone has " + std::to_string(pair.prompt_length) +
                          " tokens, which fill max_length " + std::to_string(*options_.max_length);
    return row;
  }
  const bool same = pair.chosen == pair.rejected;
  const auto longest = std::max(std::ssize(pair.chosen), std::ssize(pair.rejected));
  row.example = {example_of(std::move(pair.chosen), pair.prompt_length, options_),
                 example_of(std::move(pair.rejected), pair.prompt_length, options_)};
  const auto& [chosen, rejected] = row.example;
  if (chosen.input_ids == rejected.input_ids) {
    row.dropped_because = same ? "\"chosen\" and \"rejected\" are the same"
                               : "\"chosen\" and \"rejected\" are the same within max_length";
  } else if (trained_tokens(chosen) == 0 || trained_tokens(rejected) == 0) {
    row.dropped_because = "a completion has no token after the first of the sequence";
  } else {
    row.truncated = options_.max_length && longest > *options_.max_length;
  }
  return row;
}

PreferenceRows read_preference_rows(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                    const ChatTemplate* chat_template, const PreferenceOptions& options) {
  const PreferenceRowReader reader(tokenizer, chat_template, options);
  const JsonLines lines = JsonLines::open(file);
  if (lines.size() == 0) throw FormatError(lines.file(), -1, "there is no row in it");
  std::vector<PreparedPreference> prepared(static_cast<size_t>(lines.size()));
  parallel_for(lines.size(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) prepared[static_cast<size_t>(row)] = reader.read(lines.text(row));
  });
  const auto fails = [](const PreparedPreference& row) { return !row.error.empty(); };
  const auto failed = std::find_if(prepared.begin(), prepared.end(), fails);
  if (failed != prepared.end()) {
    const auto others = static_cast<size_t>(std::count_if(failed + 1, prepared.end(), fails));
    throw FormatError(lines.file(), -1,
                      "line " + std::to_string(lines.line(failed - prepared.begin())) + ": " + failed->error +
                          (others > 0 ? " (and " + count_of(others, "more row") + " with errors)" : ""));
  }

  PreferenceRows rows;
  size_t moved = 0;
  for (int64_t i = 0; i < lines.size(); ++i) {
    PreparedPreference& row = prepared[static_cast<size_t>(i)];
    const int64_t line = lines.line(i);
    moved += row.boundary_moved;
    if (!row.dropped_because.empty()) {
      rows.dropped.push_back({line, row.dropped_because});
      continue;
    }
    if (row.truncated) rows.truncated_lines.push_back(line);
    rows.examples.push_back(std::move(row.example));
    rows.lines.push_back(line);
  }
  warn(rows, moved, options);
  return rows;
}

}  // namespace lathe::data
