#include "data/rows/sft_rows.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "data/rows/assistant_ranges.h"
#include "data/rows/chat_rows.h"
#include "data/rows/json_lines.h"
#include "data/rows/row_fields.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

std::vector<int32_t> integers_of(const ordered_json& row, const char* field) {
  const ordered_json& values = row.at(field);
  if (!values.is_array()) throw Error(std::string("\"") + field + "\" must be a list of integers");
  std::vector<int32_t> result;
  result.reserve(values.size());
  for (const ordered_json& value : values) {
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() || value.get<uint64_t>() <= INT32_MAX) &&
                      value.get<int64_t>() >= INT32_MIN && value.get<int64_t>() <= INT32_MAX;
    if (!fits)
      throw Error(std::string("\"") + field + "\" must be a list of integers, but holds " + json_excerpt(value));
    result.push_back(value.get<int32_t>());
  }
  return result;
}

bool is_chat(const ordered_json& value) { return value.is_array(); }

std::vector<bool> mask_of(const ordered_json& row, const char* field, size_t length) {
  const std::vector<int32_t> values = integers_of(row, field);
  if (values.size() != length) {
    throw Error(std::string("\"") + field + "\" has " + std::to_string(values.size()) +
                " entries, but \"input_ids\" has " + std::to_string(length));
  }
  std::vector<bool> mask;
  for (const int32_t value : values) {
    if (value != 0 && value != 1) throw Error(std::string("\"") + field + "\" must hold 0 and 1 only");
    mask.push_back(value == 1);
  }
  return mask;
}

// Turns rows into examples. Used by many threads at once.
class SftRowPreparation {
 public:
  SftRowPreparation(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const SftOptions& options)
      : tokenizer_(tokenizer),
        chat_template_(chat_template),
        options_(options),
        token_variables_(special_token_variables(tokenizer)) {}

  PreparedRow prepare(const ordered_json& row) const {
    PreparedRow prepared = prepare_any(row);
    if (options_.vocab_size) {
      expect_in_vocabulary(prepared.example.input_ids, tokenizer_, *options_.vocab_size);
      expect_in_vocabulary(prepared.example.labels, tokenizer_, *options_.vocab_size);
    }
    return prepared;
  }

 private:
  struct EncodedChat {
    std::vector<int32_t> ids;
    std::vector<bool> assistant;
  };

  PreparedRow prepare_any(const ordered_json& row) const {
    if (row.contains("input_ids")) return prepare_tokens(row);
    if (row.contains("prompt")) return prepare_completion(row);
    for (const char* field : {"messages", "conversations"}) {
      if (row.contains(field)) return prepare_chat(row, messages_of(row, field));
    }
    if (!row.contains(options_.dataset_text_field)) {
      std::string fields;
      for (const auto& [key, value] : row.items())
        fields += (fields.empty() ? "\"" : ", \"") + key.substr(0, 40) + "\"";
      throw Error("has none of \"messages\", \"conversations\", \"prompt\" and \"completion\", \"input_ids\", \"" +
                  options_.dataset_text_field + "\"; its fields are " +
                  (fields.empty() ? "none" : fields.substr(0, 300)));
    }
    PreparedRow prepared;
    const std::string text = with_eos(string_of(row, options_.dataset_text_field), tokenizer_);
    prepared.example.input_ids = tokenizer_.encode(text, SpecialTokens::recognise, SequenceTokens::add);
    prepared.example.labels = prepared.example.input_ids;
    return prepared;
  }

  PreparedRow prepare_tokens(const ordered_json& row) const {
    PreparedRow prepared;
    std::vector<int32_t>& ids = prepared.example.input_ids;
    ids = integers_of(row, "input_ids");
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer_.vocab_size()) {
        throw Error("\"input_ids\" holds " + std::to_string(id) + ", but the vocabulary has " +
                    std::to_string(tokenizer_.vocab_size()) + " tokens");
      }
    }
    if (row.contains("labels")) {
      prepared.example.labels = integers_of(row, "labels");
      if (prepared.example.labels.size() != ids.size()) {
        throw Error("\"labels\" has " + std::to_string(prepared.example.labels.size()) +
                    " entries, but \"input_ids\" has " + std::to_string(ids.size()));
      }
      for (const int32_t label : prepared.example.labels) {
        if (label != ignored_label && (label < 0 || label >= tokenizer_.vocab_size())) {
          throw Error("\"labels\" holds " + std::to_string(label) + ", which is neither a token nor -100");
        }
      }
      return prepared;
    }
    prepared.example.labels = ids;
    if (row.contains("completion_mask")) {
      const std::vector<bool> mask = mask_of(row, "completion_mask", ids.size());
      if (options_.completion_only_loss.value_or(false)) {
        keep_labels(prepared.example, mask);
      } else {
        prepared.completion_mask_ignored = !options_.completion_only_loss.has_value();
      }
    }
    if (row.contains("assistant_masks")) keep_labels(prepared.example, mask_of(row, "assistant_masks", ids.size()));
    return prepared;
  }

  PreparedRow prepare_chat(const ordered_json& row, const ordered_json& messages) const {
    PreparedRow prepared;
    EncodedChat chat = encode_chat(row, messages, false);
    prepared.example.input_ids = chat.ids;
    prepared.example.labels = std::move(chat.ids);
    if (options_.assistant_only_loss) keep_labels(prepared.example, checked_assistant(chat.assistant));
    return prepared;
  }

  PreparedRow prepare_completion(const ordered_json& row) const {
    if (!row.contains("completion")) throw Error("has a \"prompt\" but no \"completion\"");
    PreparedRow prepared;
    std::vector<int32_t> prompt_ids;
    EncodedChat whole;
    if (is_chat(row.at("prompt")) != is_chat(row.at("completion"))) {
      throw Error("\"prompt\" and \"completion\" must both be strings or both be lists of messages");
    }
    if (is_chat(row.at("prompt"))) {
      ordered_json messages = messages_of(row, "prompt");
      prompt_ids = encode_chat(row, messages, true).ids;
      for (ordered_json& message : messages_of(row, "completion")) messages.push_back(std::move(message));
      whole = encode_chat(row, messages, false);
    } else {
      const std::string prompt = string_of(row, "prompt");
      const std::string completion = with_eos(string_of(row, "completion"), tokenizer_);
      prompt_ids = tokenizer_.encode(prompt, SpecialTokens::recognise, SequenceTokens::add);
      whole.ids = tokenizer_.encode(prompt + completion, SpecialTokens::recognise, SequenceTokens::add);
    }
    // Tokens may merge across the border: the completion begins at the first id that differs from the prompt's own.
    const auto parted = std::mismatch(prompt_ids.begin(), prompt_ids.end(), whole.ids.begin(), whole.ids.end()).first;
    const auto prompt_length = static_cast<size_t>(parted - prompt_ids.begin());
    prepared.boundary_moved = prompt_length < prompt_ids.size();
    prepared.example.input_ids = prepared.example.labels = whole.ids;
    if (options_.completion_only_loss.value_or(true)) {
      std::fill_n(prepared.example.labels.begin(), prompt_length, ignored_label);
    }
    if (options_.assistant_only_loss && is_chat(row.at("prompt")))
      keep_labels(prepared.example, checked_assistant(whole.assistant));
    return prepared;
  }

  EncodedChat encode_chat(const ordered_json& row, const ordered_json& messages, bool add_generation_prompt) const {
    RenderedChat chat = render_row(row, messages, chat_template_, token_variables_, add_generation_prompt);
    const TextRange everything{0, chat.text.size()};
    const auto control = options_.special_tokens_in_messages == SpecialTokens::recognise
                             ? std::span(&everything, 1)
                             : std::span<const TextRange>(chat.control);
    if (!options_.assistant_only_loss || add_generation_prompt) return {tokenizer_.encode(chat.text, control), {}};
    if (!chat_template_->marks_assistant())
      chat.assistant = assistant_ranges_by_prefixes(messages, chat.text, [&](size_t count, bool generation_prompt) {
        ordered_json first = ordered_json::array();
        for (size_t i = 0; i < count; ++i) first.push_back(messages[i]);
        return render_row(row, first, chat_template_, token_variables_, generation_prompt).text;
      });
    EncodedText encoded = tokenizer_.encode_with_ranges(chat.text, control);
    EncodedChat result{std::move(encoded.ids), std::vector<bool>(encoded.ranges.size())};
    for (const TextRange& range : chat.assistant) {
      for (size_t i = 0; i < encoded.ranges.size(); ++i) {
        if (encoded.ranges[i].begin < range.end && encoded.ranges[i].end > range.begin) result.assistant[i] = true;
      }
    }
    return result;
  }

  const std::vector<bool>& checked_assistant(const std::vector<bool>& mask) const {
    if (std::find(mask.begin(), mask.end(), true) == mask.end()) {
      throw Error("has no token of the assistant to train on (assistant_only_loss is on)");
    }
    return mask;
  }

  static void keep_labels(SftExample& example, const std::vector<bool>& mask) {
    for (size_t i = 0; i < mask.size(); ++i) {
      if (!mask[i]) example.labels[i] = ignored_label;
    }
  }

  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_template_;
  const SftOptions& options_;
  std::map<std::string, std::string> token_variables_;
};

void truncate(SftExample& example, size_t max_length, TruncationMode mode) {
  for (auto* values : {&example.input_ids, &example.labels}) {
    if (mode == TruncationMode::keep_end)
      values->erase(values->begin(), values->end() - static_cast<std::ptrdiff_t>(max_length));
    values->resize(max_length);
  }
}

std::string count_of(int64_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

}  // namespace

int64_t trained_tokens(const SftExample& example) {
  if (example.labels.empty()) return 0;
  return std::count_if(example.labels.begin() + 1, example.labels.end(),
                       [](int32_t label) { return label != ignored_label; });
}

struct SftRowReader::Preparation {
  SftRowPreparation rows;
};

SftRowReader::SftRowReader(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const SftOptions& options)
    : options_(options), preparation_(new Preparation{SftRowPreparation(tokenizer, chat_template, options)}) {
  if (options.max_length && *options.max_length < 1) throw ConfigError("max_length", "must be at least 1");
  if (options.packing && !options.max_length) throw ConfigError("max_length", "packing needs one");
}
SftRowReader::~SftRowReader() = default;

// From EOS to labels is `make`'s; then rows are truncated and dropped, but for packing, which does it itself.
template <class Make>
PreparedRow SftRowReader::finished(Make make) const {
  PreparedRow row;
  try {
    row = make();
  } catch (const std::bad_alloc&) {
    throw;  // the row is not at fault
  } catch (const std::exception& error) {
    row.error = error.what();
    return row;
  }
  const auto length = static_cast<int64_t>(row.example.input_ids.size());
  row.truncated = options_.max_length && length > *options_.max_length;
  if (row.truncated && options_.too_long == TooLong::error) {
    row = {};
    row.error = "has " + std::to_string(length) + " tokens, and max_length is " + std::to_string(*options_.max_length);
    return row;
  }
  if (options_.packing) return row;
  const bool trained_before = trained_tokens(row.example) > 0;
  if (row.truncated) truncate(row.example, static_cast<size_t>(*options_.max_length), options_.truncation_mode);
  if (trained_tokens(row.example) == 0)
    row.dropped_because = length == 0      ? "it has no token"
                          : trained_before ? "nothing to train on is left after truncation to max_length"
                                           : "it has nothing to train on";
  return row;
}

PreparedRow SftRowReader::read(std::string_view json) const {
  return finished([&] {
    const JsonRow row(json);
    return preparation_->rows.prepare(row.object());
  });
}

PreparedRow SftRowReader::read_text(std::string_view text) const {
  return finished([&] {
    if (!is_valid_utf8(text)) throw Error("is not valid UTF-8");
    return preparation_->rows.prepare(ordered_json{{options_.dataset_text_field, std::string(text)}});
  });
}

void SftRowCounts::add(const PreparedRow& row, int64_t line) {
  if (row.truncated && ++truncated == 1) first_truncated_line = line;
  boundary_moved += row.boundary_moved;
  completion_mask_ignored += row.completion_mask_ignored;
  if (row.dropped_because.empty() || ++dropped > 1) return;
  first_dropped_line = line;
  first_dropped_because = row.dropped_because;
}

std::vector<std::string> SftRowCounts::warnings(const SftOptions& options) const {
  std::vector<std::string> sentences;
  if (truncated > 0) {
    sentences.push_back(count_of(truncated, "row") + " longer than max_length " + std::to_string(*options.max_length) +
                        (options.packing ? " will be cut by packing" : " truncated") + ", the first in line " +
                        std::to_string(first_truncated_line));
  }
  if (dropped > 0) {
    sentences.push_back(count_of(dropped, "row") + " dropped, the first in line " + std::to_string(first_dropped_line) +
                        ": " + first_dropped_because);
  }
  if (boundary_moved > 0) {
    sentences.push_back("in " + count_of(boundary_moved, "row") +
                        " the prompt's last tokens change when the completion follows; the completion is taken to "
                        "begin where they part");
  }
  if (completion_mask_ignored > 0) {
    sentences.push_back(count_of(completion_mask_ignored, "row") +
                        " with a \"completion_mask\" trained on whole; completion_only_loss turns the mask on");
  }
  return sentences;
}

SftRows read_sft_rows(const std::filesystem::path& file, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                      const SftOptions& options, RowPart part) {
  const SftRowReader reader(tokenizer, chat_template, options);
  const JsonLines lines = JsonLines::open(file);
  if (lines.size() == 0) throw FormatError(lines.file(), -1, "there is no row in it");
  std::vector<PreparedRow> prepared(static_cast<size_t>(lines.size()));
  parallel_for(lines.size(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      if (part.has(row)) prepared[static_cast<size_t>(row)] = reader.read(lines.text(row));
  });

  SftRows rows;
  const auto failed =
      std::find_if(prepared.begin(), prepared.end(), [](const PreparedRow& row) { return !row.error.empty(); });
  if (failed != prepared.end()) {
    const int64_t others =
        std::count_if(failed + 1, prepared.end(), [](const PreparedRow& row) { return !row.error.empty(); });
    throw FormatError(lines.file(), -1,
                      "line " + std::to_string(lines.line(failed - prepared.begin())) + ": " + failed->error +
                          (others > 0 ? " (and " + count_of(others, "more row") + " with errors)" : ""));
  }
  SftRowCounts counts;
  for (int64_t i = 0; i < lines.size(); ++i) {
    if (!part.has(i)) continue;
    PreparedRow& row = prepared[static_cast<size_t>(i)];
    const int64_t line = lines.line(i);
    counts.add(row, line);
    if (row.truncated) rows.truncated_lines.push_back(line);
    if (!row.dropped_because.empty()) {
      rows.dropped.push_back({line, row.dropped_because});
      continue;
    }
    rows.examples.push_back(std::move(row.example));
    rows.lines.push_back(line);
  }
  rows.warnings = counts.warnings(options);
  return rows;
}

}  // namespace lathe::data
