#include <algorithm>
#include <cstdio>

#include "core/atomic_write.h"
#include "core/error.h"
#include "data/shards/row_kinds.h"
#include "data/shards/shard_tokenization.h"
#include "data/shards/shards.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;

void expect_alike(const ShardManifest& first, const ShardManifest& other, const fs::path& folder) {
  if (other.tokenizer != first.tokenizer || other.chat_template != first.chat_template ||
      other.vocab_size != first.vocab_size)
    throw ConfigError("merge", folder.string() + " was made with the tokenizer of " + other.model +
                                   ", and the folders before it with that of " + first.model);
  if (kind_of(other.settings) != kind_of(first.settings))
    throw ConfigError("merge", folder.string() + " holds rows of kind " + kind_of(other.settings) +
                                   ", and the folders before it of kind " + kind_of(first.settings));
  for (const auto& [name, value] : first.settings.items()) {
    const auto found = other.settings.find(name);
    if (found == other.settings.end() || *found != value)
      throw ConfigError("merge", folder.string() + " was made with another " + name + " than the folders before it");
  }
}

void add(ShardTotals& sum, const ShardTotals& part) {
  sum.examples += part.examples;
  sum.rows += part.rows;
  sum.sequences += part.sequences;
  sum.tokens += part.tokens;
  sum.labelled_tokens += part.labelled_tokens;
  sum.longest_sequence = std::max(sum.longest_sequence, part.longest_sequence);
  for (const auto& [tokens, rows] : part.row_lengths) sum.row_lengths[tokens] += rows;
  sum.dropped_sequences += part.dropped_sequences;
  SftRowCounts& counts = sum.counts;
  if (counts.truncated == 0) counts.first_truncated_line = part.counts.first_truncated_line;
  if (counts.dropped == 0) {
    counts.first_dropped_line = part.counts.first_dropped_line;
    counts.first_dropped_because = part.counts.first_dropped_because;
  }
  counts.truncated += part.counts.truncated;
  counts.dropped += part.counts.dropped;
  counts.boundary_moved += part.counts.boundary_moved;
  counts.completion_mask_ignored += part.counts.completion_mask_ignored;
  for (const auto& [name, rows] : part.columns) sum.columns[name] += rows;
  sum.bad_rows += part.bad_rows;
  for (const BadRow& row : part.first_bad_rows)
    if (sum.first_bad_rows.size() < max_listed_bad_rows) sum.first_bad_rows.push_back(row);
}

}  // namespace

void merge_shards(const std::vector<fs::path>& folders, const fs::path& output) {
  if (folders.empty()) throw ConfigError("merge", "there is no folder to join");
  std::error_code ignored;
  if (fs::exists(output, ignored))
    throw ConfigError("output", output.string() + " exists; choose another folder, or remove it");
  ShardManifest merged = read_shard_manifest(folders[0]);
  merged.files.clear();
  merged.sources.clear();
  merged.warnings.clear();
  merged.made_from.clear();
  merged.totals = {};
  AtomicDirectory directory(output);
  for (const fs::path& folder : folders) {
    const ShardManifest part = read_shard_manifest(folder);
    expect_alike(merged, part, folder);
    for (ShardEntry entry : part.files) {
      const fs::path from = folder / entry.name;
      const ShardFile checked(from, entry.header_xxh64);
      entry.name = shard_name(merged.files.size());
      std::error_code error;
      fs::create_hard_link(from, directory.staging() / entry.name, error);
      if (error) fs::copy_file(from, directory.staging() / entry.name, error);
      if (error) throw ResourceError("cannot copy " + from.string() + ": " + error.message());
      merged.files.push_back(std::move(entry));
    }
    for (const ShardSource& source : part.sources) {
      const bool known = std::ranges::any_of(merged.sources, [&](const ShardSource& other) {
        return other.path == source.path && other.xxh64 == source.xxh64;
      });
      if (!known) merged.sources.push_back(source);
    }
    merged.warnings.insert(merged.warnings.end(), part.warnings.begin(), part.warnings.end());
    add(merged.totals, part.totals);
  }
  write_shard_manifest(directory.staging(), merged);
  directory.commit();
}

}  // namespace lathe::data
