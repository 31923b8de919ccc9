// manifest.json of a folder of shards: what is in them and what they were made of, so that a run is planned without
// touching a row. The format is in docs/data.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "data/rows/sft_rows.h"

namespace lathe::data {

inline constexpr const char* shard_manifest_name = "manifest.json";

struct ShardEntry {
  std::string name;  // "shard-00000.bin"
  int64_t bytes = 0, rows = 0, sequences = 0, tokens = 0;
  uint64_t header_xxh64 = 0;
};

// A file that rows were read from, or "standard input".
struct ShardSource {
  std::string path;
  int64_t bytes = 0, rows = 0;
  std::string xxh64;    // of the file as it lies
  std::string license;  // that the source names (source_license.h); empty where it names none
};

// A row that was left out because it is none.
struct BadRow {
  std::string source;
  int64_t line = 0;
  std::string reason;
};

// What shards count while they are made, and add up to.
struct ShardTotals {
  int64_t examples = 0;  // rows read that are not bad or dropped; fewer than `rows` only where rows were split
  int64_t rows = 0, sequences = 0, tokens = 0, labelled_tokens = 0, longest_sequence = 0;
  std::map<int64_t, int64_t> row_lengths;  // how many rows have so many tokens
  int64_t dropped_sequences = 0;           // packed ones with nothing to train on
  SftRowCounts counts;
  std::map<std::string, int64_t> columns;  // of prompts: how many rows have something in each
  int64_t bad_rows = 0;
  std::vector<BadRow> first_bad_rows;  // at most 100
};

struct ShardManifest {
  std::string model;                     // the name of the model whose tokenizer it was
  std::string tokenizer, chat_template;  // text_identity.h
  int64_t vocab_size = 0;                // of the model
  nlohmann::ordered_json settings;       // of a kind of rows (row_kinds.h)
  std::string made_from;                 // a hash of the inputs' names and of every setting; empty for what was merged
  std::vector<ShardEntry> files;
  std::vector<ShardSource> sources;
  ShardTotals totals;
  std::vector<std::string> warnings;

  // xxHash-64 of the headers' hashes in order: of every byte of every shard.
  uint64_t fingerprint() const;
};

nlohmann::ordered_json to_json(const ShardTotals& totals);
ShardTotals totals_from_json(const nlohmann::ordered_json& json, const std::string& file);
nlohmann::ordered_json to_json(const std::vector<ShardEntry>& files);
std::vector<ShardEntry> entries_from_json(const nlohmann::ordered_json& json, const std::string& file);

bool is_shard_folder(const std::filesystem::path& folder);
// FormatError for a manifest that is none, is of a newer version, or was changed after it was written.
ShardManifest read_shard_manifest(const std::filesystem::path& folder);
void write_shard_manifest(const std::filesystem::path& folder, const ShardManifest& manifest);

}  // namespace lathe::data
