#include "train/dataset_shards.h"

#include <filesystem>
#include <optional>

#include "core/error.h"
#include "data/readers/row_source.h"
#include "data/shards/row_kinds.h"
#include "data/shards/shards.h"
#include "data/shards/text_identity.h"

namespace lathe::train {
namespace {

using nlohmann::ordered_json;

std::string shown(const ordered_json& value) { return value.is_null() ? "none" : value.dump(); }

// Where nothing was cut, how much and which end would have been does not matter.
bool was_never_cut(const ordered_json& settings, const data::ShardTotals& totals) {
  const ordered_json length = settings.value("max_length", ordered_json());
  return !settings.value("packing", false) && totals.counts.truncated == 0 &&
         (length.is_null() || totals.longest_sequence <= length.get<int64_t>());
}

// Rows that stand by themselves in shards are packed as the run draws them, to what packing raw rows makes. That cuts
// and leaves out other rows than not packing does: there may be none of those.
bool packs_while_training(const std::string& path, const data::ShardManifest& manifest,
                          const ExpectedShards& expected) {
  if (!expected.settings.value("packing", false) || manifest.settings.value("packing", false)) return false;
  const data::ShardTotals& totals = manifest.totals;
  const auto length = expected.settings.at("max_length").get<int64_t>();
  const auto refuse = [&](const std::string& key, const std::string& found) {
    throw ConfigError(key, found + ", so that " + path +
                               " cannot be packed while training; make shards with --packing (lathe-data tokenize)");
  };
  const auto strategy = expected.settings.at("packing_strategy").get<std::string>();
  if (strategy == "wrapped") refuse("packing_strategy", "wrapped cuts rows where they meet");
  if (totals.longest_sequence > length)
    refuse("max_length",
           "is " + std::to_string(length) + ", and a row has " + std::to_string(totals.longest_sequence) + " tokens");
  const bool cut_alike = strategy == "bfd" && manifest.settings.value("max_length", ordered_json()) == length &&
                         manifest.settings.value("truncation_mode", "") == "keep_start";
  if (totals.counts.truncated > 0 && !cut_alike)
    refuse("packing", std::to_string(totals.counts.truncated) + " rows were cut when the shards were made");
  if (totals.counts.dropped > 0)
    refuse("packing", std::to_string(totals.counts.dropped) + " rows were left out when the shards were made");
  return true;
}

void expect_same_rows(const std::string& path, const data::ShardManifest& manifest, const ExpectedShards& expected,
                      const text::ModelText& text, bool packs) {
  const std::string& key = expected.key;
  const std::string kind = data::kind_of(manifest.settings), wanted = data::kind_of(expected.settings);
  if (kind != wanted)
    throw ConfigError(key, path + " holds shards of " + kind + " rows, and lathe-train " + expected.command +
                               " learns from " + wanted + " rows (lathe-data tokenize --kind " + wanted + ")");
  if (manifest.tokenizer != data::tokenizer_identity(*text.tokenizer))
    throw ConfigError(key, path + " was made with the tokenizer of " + manifest.model + ", and that of " +
                               expected.model + " is another; make shards with this one (lathe-data tokenize)");
  if (manifest.chat_template != data::chat_template_identity(*text.tokenizer))
    throw ConfigError(key, path + " was made with the chat template of " + manifest.model + ", and that of " +
                               expected.model + " is another; make shards with this one (lathe-data tokenize)");
  if (manifest.vocab_size > text.vocab_size)
    throw ConfigError(key, path + " was made for " + std::to_string(manifest.vocab_size) +
                               " tokens, and the model has " + std::to_string(text.vocab_size));
  const data::ShardTotals& totals = manifest.totals;
  const bool never_cut = was_never_cut(expected.settings, totals);
  for (const auto& [name, value] : expected.settings.items()) {
    if (packs && (name == "max_length" || name == "truncation_mode" || name.starts_with("packing"))) continue;
    const auto made = manifest.settings.find(name);
    if (made != manifest.settings.end() && *made == value) continue;
    if (never_cut && (name == "max_length" || name == "truncation_mode")) continue;
    throw ConfigError(name, "is " + shown(value) + " here, and " + path + " was made with " +
                                (made == manifest.settings.end() ? "none" : shown(*made)) +
                                "; give the same, or make shards with this one (lathe-data tokenize)");
  }
  if (expected.refuse_truncated && totals.counts.truncated > 0)
    throw ConfigError("too_long", "is error, and " + path + " holds rows that were cut at max_length");
}

}  // namespace

TrainingSet open_shards(const std::string& path, const ExpectedShards& expected, const text::ModelText& text,
                        std::vector<std::string>& warnings) {
  auto shards = std::make_shared<const data::Shards>(path);
  const bool packs = packs_while_training(path, shards->manifest(), expected);
  expect_same_rows(path, shards->manifest(), expected, text, packs);
  for (const std::string& warning : shards->manifest().warnings) warnings.push_back(path + ": " + warning);
  std::optional<int64_t> packed_to;
  if (packs) packed_to = expected.settings.at("max_length").get<int64_t>();
  TrainingSet set = TrainingSet::of_shards(std::move(shards), packed_to);
  if (set.rows() == 0) throw ConfigError(expected.key, path + " holds nothing to learn from");
  return set;
}

void expect_file(const std::string& key, const std::string& path) {
  if (path == data::standard_input || std::filesystem::is_regular_file(path)) return;
  if (std::filesystem::is_fifo(path))
    throw ConfigError(key, path + " is a pipe; lathe-train with --streaming and --max_steps reads one");
  if (!std::filesystem::is_directory(path)) throw ConfigError(key, path + " is no file");
  data::files_of_input(path, key);
}

}  // namespace lathe::train
