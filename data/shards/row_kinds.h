// What rows shards are made of: each kind of training has its own, and a folder of shards holds one of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json_value.h"
#include "data/rows/preference_rows.h"
#include "data/rows/prompt_rows.h"
#include "data/rows/sft_rows.h"

namespace lathe::data {

enum class RowKind { sft, preference, prompt };
std::string_view name_of(RowKind kind);  // "sft"
// ConfigError (kind) for a name that is none of theirs.
RowKind row_kind(std::string_view name);
// Of a manifest's settings.
std::string kind_of(const nlohmann::ordered_json& settings);

// The settings that shape rows, by their names in lathe-train sft, dpo and grpo.
nlohmann::ordered_json sft_settings_json(const SftOptions& options, const std::string& packing_strategy);
nlohmann::ordered_json preference_settings_json(const PreferenceOptions& options);
nlohmann::ordered_json prompt_settings_json();

// One row on its way into a shard.
struct ShardRow {
  PreparedRow prepared;                // its only sequence or the chosen one, and what became of it
  std::optional<SftExample> rejected;  // of a preference
  std::string text;                    // of a prompt: prompt_text()
  std::vector<std::string> columns;    // of a prompt: those that hold something
};

// Turns rows of one kind into those of shards, one at a time. Any number of threads may use one.
class ShardRowReader {
 public:
  // Everything must outlive the reader. ConfigError for options that contradict each other.
  ShardRowReader(RowKind kind, const Tokenizer& tokenizer, const ChatTemplate* chat_template, const SftOptions& sft,
                 const PreferenceOptions& preference, int64_t vocab_size);

  // A line of JSON Lines, or a row that is its text. `source` and `line` say where it stands.
  ShardRow read(std::string_view row, bool is_text, const std::string& source, int64_t line) const;

 private:
  RowKind kind_;
  std::optional<SftRowReader> sft_;
  std::optional<PreferenceRowReader> preference_;
  std::optional<PromptRowReader> prompt_;
};

}  // namespace lathe::data
