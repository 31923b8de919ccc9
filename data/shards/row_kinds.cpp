#include "data/shards/row_kinds.h"

#include <new>

#include "core/error.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

const char* name_of(TruncationMode mode) { return mode == TruncationMode::keep_start ? "keep_start" : "keep_end"; }

ordered_json or_null(const std::optional<int64_t>& value) { return value ? ordered_json(*value) : ordered_json(); }

ShardRow shard_row(PreparedPreference row) {
  ShardRow result;
  result.prepared.example = std::move(row.example.chosen);
  result.prepared.error = std::move(row.error);
  result.prepared.dropped_because = std::move(row.dropped_because);
  result.prepared.truncated = row.truncated;
  result.prepared.boundary_moved = row.boundary_moved;
  result.rejected = std::move(row.example.rejected);
  return result;
}

}  // namespace

std::string_view name_of(RowKind kind) {
  switch (kind) {
    case RowKind::sft: return "sft";
    case RowKind::preference: return "preference";
    case RowKind::prompt: return "prompt";
  }
  return "";
}

RowKind row_kind(std::string_view name) {
  for (const RowKind kind : {RowKind::sft, RowKind::preference, RowKind::prompt})
    if (name == name_of(kind)) return kind;
  throw ConfigError("kind", "must be sft, preference or prompt, found '" + std::string(name) + "'");
}

// Shards of sft rows do not say so: the first ones had no other kind.
std::string kind_of(const ordered_json& settings) { return settings.value("kind", "sft"); }

ordered_json sft_settings_json(const SftOptions& options, const std::string& packing_strategy) {
  ordered_json settings = {{"dataset_text_field", options.dataset_text_field}};
  settings["max_length"] = or_null(options.max_length);
  settings["truncation_mode"] = name_of(options.truncation_mode);
  settings["completion_only_loss"] =
      options.completion_only_loss ? ordered_json(*options.completion_only_loss) : ordered_json(nullptr);
  settings["assistant_only_loss"] = options.assistant_only_loss;
  settings["packing"] = options.packing;
  settings["packing_strategy"] = options.packing ? ordered_json(packing_strategy) : ordered_json(nullptr);
  return settings;
}

ordered_json preference_settings_json(const PreferenceOptions& options) {
  return {{"kind", "preference"},
          {"max_length", or_null(options.max_length)},
          {"truncation_mode", name_of(options.truncation_mode)}};
}

ordered_json prompt_settings_json() { return {{"kind", "prompt"}}; }

ShardRowReader::ShardRowReader(RowKind kind, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                               const SftOptions& sft, const PreferenceOptions& preference, int64_t vocab_size)
    : kind_(kind) {
  switch (kind) {
    case RowKind::sft: sft_.emplace(tokenizer, chat_template, sft); break;
    case RowKind::preference: preference_.emplace(tokenizer, chat_template, preference); break;
    case RowKind::prompt: prompt_.emplace(tokenizer, chat_template, vocab_size); break;
  }
}

ShardRow ShardRowReader::read(std::string_view row, bool is_text, const std::string& source, int64_t line) const {
  ShardRow result;
  if (kind_ == RowKind::sft) {
    result.prepared = is_text ? sft_->read_text(row) : sft_->read(row);
  } else if (is_text) {
    result.prepared.error = "is plain text, and rows of kind " + std::string(lathe::data::name_of(kind_)) + " are JSON";
  } else if (kind_ == RowKind::preference) {
    result = shard_row(preference_->read(row));
  } else {
    try {
      PromptRow prompt = prompt_->read(row);
      prompt.file = source;
      prompt.line = line;
      result.text = prompt_text(prompt);
      for (const auto& [name, value] : prompt.columns.items())
        if (!value.is_null()) result.columns.push_back(name);
      result.prepared.example.labels.assign(prompt.ids.size(), ignored_label);
      result.prepared.example.input_ids = std::move(prompt.ids);
    } catch (const std::bad_alloc&) {
      throw;  // the row is not at fault
    } catch (const std::exception& error) {
      result.prepared.error = error.what();
    }
  }
  return result;
}

}  // namespace lathe::data
