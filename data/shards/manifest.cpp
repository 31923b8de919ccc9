#include "data/shards/manifest.h"

#include <xxhash.h>

#include <algorithm>

#include "core/atomic_write.h"
#include "core/digits.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "data/shards/text_identity.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view format_family = "lathe shards ", format_name = "lathe shards 1";
constexpr int64_t most = int64_t{1} << 53;  // what every reader of JSON holds exactly

int64_t count_at(const ordered_json& object, const char* key, const std::string& file) {
  return json_integer(json_member(object, key, file), key, 0, most, file);
}

uint64_t hash_at(const ordered_json& object, const char* key, const std::string& file) {
  const std::string digits = json_text(object, key, file);
  if (digits.size() != 16 || digits.find_first_not_of("0123456789abcdef") != std::string::npos)
    throw FormatError(file, -1, std::string("\"") + key + "\" must be 16 hexadecimal digits");
  return std::stoull(digits, nullptr, 16);
}

}  // namespace

uint64_t ShardManifest::fingerprint() const {
  uint64_t hash = 0;
  for (const ShardEntry& file : files) hash = XXH64(&file.header_xxh64, sizeof file.header_xxh64, hash);
  return hash;
}

ordered_json to_json(const ShardTotals& totals) {
  ordered_json lengths = ordered_json::array(), bad = ordered_json::array();
  for (const auto& [tokens, rows] : totals.row_lengths) lengths.push_back({tokens, rows});
  for (const BadRow& row : totals.first_bad_rows)
    bad.push_back({{"source", row.source}, {"line", row.line}, {"reason", row.reason}});
  const SftRowCounts& counts = totals.counts;
  ordered_json json = {{"examples", totals.examples},
                       {"rows", totals.rows},
                       {"sequences", totals.sequences},
                       {"tokens", totals.tokens},
                       {"labelled_tokens", totals.labelled_tokens},
                       {"longest_sequence", totals.longest_sequence},
                       {"row_lengths", lengths},
                       {"truncated", counts.truncated},
                       {"first_truncated_line", counts.first_truncated_line},
                       {"dropped", counts.dropped},
                       {"first_dropped_line", counts.first_dropped_line},
                       {"first_dropped_because", counts.first_dropped_because},
                       {"boundary_moved", counts.boundary_moved},
                       {"completion_mask_ignored", counts.completion_mask_ignored},
                       {"dropped_sequences", totals.dropped_sequences},
                       {"bad_rows", totals.bad_rows},
                       {"first_bad_rows", bad}};
  if (!totals.columns.empty()) json["columns"] = totals.columns;
  return json;
}

ShardTotals totals_from_json(const ordered_json& json, const std::string& file) {
  ShardTotals totals;
  totals.examples = count_at(json, "examples", file);
  totals.rows = count_at(json, "rows", file);
  totals.sequences = count_at(json, "sequences", file);
  totals.tokens = count_at(json, "tokens", file);
  totals.labelled_tokens = count_at(json, "labelled_tokens", file);
  totals.longest_sequence = count_at(json, "longest_sequence", file);
  for (const ordered_json& pair : json_list(json, "row_lengths", file)) {
    if (!pair.is_array() || pair.size() != 2) throw FormatError(file, -1, "\"row_lengths\" must hold pairs");
    totals.row_lengths[json_integer(pair[0], "row_lengths", 0, most, file)] =
        json_integer(pair[1], "row_lengths", 0, most, file);
  }
  SftRowCounts& counts = totals.counts;
  counts.truncated = count_at(json, "truncated", file);
  counts.first_truncated_line = count_at(json, "first_truncated_line", file);
  counts.dropped = count_at(json, "dropped", file);
  counts.first_dropped_line = count_at(json, "first_dropped_line", file);
  counts.first_dropped_because = json_text(json, "first_dropped_because", file);
  counts.boundary_moved = count_at(json, "boundary_moved", file);
  counts.completion_mask_ignored = count_at(json, "completion_mask_ignored", file);
  totals.dropped_sequences = count_at(json, "dropped_sequences", file);
  totals.bad_rows = count_at(json, "bad_rows", file);
  for (const ordered_json& row : json_list(json, "first_bad_rows", file))
    totals.first_bad_rows.push_back(
        {json_text(row, "source", file), count_at(row, "line", file), json_text(row, "reason", file)});
  if (const auto columns = json.find("columns"); columns != json.end())
    for (const auto& [name, rows] : columns->items())
      totals.columns[name] = json_integer(rows, "columns", 0, most, file);
  return totals;
}

ordered_json to_json(const std::vector<ShardEntry>& files) {
  ordered_json list = ordered_json::array();
  for (const ShardEntry& file : files)
    list.push_back({{"name", file.name},
                    {"bytes", file.bytes},
                    {"rows", file.rows},
                    {"sequences", file.sequences},
                    {"tokens", file.tokens},
                    {"header_xxh64", hash_digits(file.header_xxh64)}});
  return list;
}

std::vector<ShardEntry> entries_from_json(const ordered_json& json, const std::string& file) {
  std::vector<ShardEntry> files;
  for (const ordered_json& entry : json) {
    ShardEntry shard;
    shard.name = json_text(entry, "name", file);
    if (shard.name.empty() || shard.name.find('/') != std::string::npos || shard.name[0] == '.')
      throw FormatError(file, -1, "lists " + shard.name + ", which is no shard of this folder");
    shard.bytes = count_at(entry, "bytes", file);
    shard.rows = count_at(entry, "rows", file);
    shard.sequences = count_at(entry, "sequences", file);
    shard.tokens = count_at(entry, "tokens", file);
    shard.header_xxh64 = hash_at(entry, "header_xxh64", file);
    files.push_back(std::move(shard));
  }
  return files;
}

bool is_shard_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(folder / shard_manifest_name, ignored);
}

void write_shard_manifest(const std::filesystem::path& folder, const ShardManifest& manifest) {
  ordered_json sources = ordered_json::array();
  for (const ShardSource& source : manifest.sources) {
    sources.push_back({{"path", source.path}, {"bytes", source.bytes}, {"rows", source.rows}, {"xxh64", source.xxh64}});
    if (!source.license.empty()) sources.back()["license"] = source.license;
  }
  ordered_json json = {{"format", format_name},
                       {"model", manifest.model},
                       {"tokenizer", manifest.tokenizer},
                       {"chat_template", manifest.chat_template},
                       {"vocab_size", manifest.vocab_size},
                       {"settings", manifest.settings},
                       {"made_from", manifest.made_from},
                       {"totals", to_json(manifest.totals)},
                       {"warnings", manifest.warnings},
                       {"sources", sources},
                       {"files", to_json(manifest.files)}};
  const std::string text = json_file_text(json, 1);
  json["xxh64"] = hash_digits(XXH64(text.data(), text.size(), 0));
  write_file_atomically(folder / shard_manifest_name, json_file_text(json, 1));
}

ShardManifest read_shard_manifest(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / shard_manifest_name;
  const std::string file = path.string();
  ordered_json json = read_json_file(path);
  const std::string format = json_text(json, "format", file);
  if (!format.starts_with(format_family)) throw FormatError(file, -1, "is no manifest of shards");
  if (format != format_name)
    throw FormatError(file, -1,
                      "has the format \"" + format + "\", and this program reads \"" + std::string(format_name) +
                          "\"; use the program that wrote it, or a newer one");
  const std::string written = json_text(json, "xxh64", file);
  json.erase("xxh64");
  const std::string text = json_file_text(json, 1);
  if (hash_digits(XXH64(text.data(), text.size(), 0)) != written)
    throw FormatError(file, -1, "was changed after it was written; restore it, or make the shards again");

  ShardManifest manifest;
  manifest.model = json_text(json, "model", file);
  manifest.tokenizer = json_text(json, "tokenizer", file);
  manifest.chat_template = json_text(json, "chat_template", file);
  manifest.vocab_size = count_at(json, "vocab_size", file);
  manifest.settings = json_member(json, "settings", file);
  if (!manifest.settings.is_object()) throw FormatError(file, -1, "\"settings\" must be an object");
  manifest.made_from = json_text(json, "made_from", file);
  manifest.totals = totals_from_json(json_member(json, "totals", file), file);
  for (const ordered_json& warning : json_list(json, "warnings", file))
    if (warning.is_string()) manifest.warnings.push_back(warning.get<std::string>());
  for (const ordered_json& source : json_list(json, "sources", file))
    manifest.sources.push_back({json_text(source, "path", file), count_at(source, "bytes", file),
                                count_at(source, "rows", file), json_text(source, "xxh64", file),
                                source.contains("license") ? json_text(source, "license", file) : ""});
  manifest.files = entries_from_json(json_list(json, "files", file), file);
  int64_t rows = 0, sequences = 0, tokens = 0;
  for (const ShardEntry& shard : manifest.files) {
    rows += shard.rows;
    sequences += shard.sequences;
    tokens += shard.tokens;
    if (rows > most || sequences > most || tokens > most) break;
  }
  const ShardTotals& totals = manifest.totals;
  if (rows != totals.rows || sequences != totals.sequences || tokens != totals.tokens)
    throw FormatError(file, -1, "its files do not add up to its totals");
  return manifest;
}

}  // namespace lathe::data
