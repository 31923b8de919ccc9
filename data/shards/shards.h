// A folder of shards as one list of rows. Opening reads the manifest alone; a shard is mapped when a row of it is first
// asked for, and its blocks are compared with their hashes as they are touched, so that neither time nor memory grows
// with the rows.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/shards/manifest.h"
#include "data/shards/shard_file.h"

namespace lathe::data {

class Shards {
 public:
  // Errors as read_shard_manifest().
  explicit Shards(const std::filesystem::path& folder);

  const ShardManifest& manifest() const { return manifest_; }
  int64_t rows() const { return manifest_.totals.rows; }
  int64_t sequences() const { return manifest_.totals.sequences; }

  // Sequences are counted through all shards. These: FormatError as ShardFile's. Any number of threads may read.
  std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const;
  int64_t sequence_tokens(int64_t sequence) const;
  // A hint that the sequences [first, last) of one row will be read soon: rows are drawn from anywhere, where no
  // processor looks ahead. It checks nothing.
  void prefetch_sequences(int64_t first, int64_t last) const;
  // The sequences [first, last) of one row, end to end: as many ids and labels as they have tokens.
  void read_sequences(int64_t first, int64_t last, std::span<int32_t> ids, std::span<int32_t> labels) const;
  // To both.
  void append_sequence(int64_t sequence, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const;
  std::string row_text(int64_t row) const;  // what was kept with the row; empty where nothing was

 private:
  const ShardFile& file(size_t index) const;

  std::filesystem::path folder_;
  ShardManifest manifest_;
  std::vector<int64_t> row_begin_, sequence_begin_;  // of each file, and the end
  std::shared_ptr<BlockCache> cache_ = std::make_shared<BlockCache>();
  mutable std::mutex opening_;
  mutable std::vector<std::unique_ptr<const ShardFile>> files_;
  mutable std::vector<std::atomic<const ShardFile*>> opened_;  // those of files_, to be looked up without the lock
};

// Every byte of every shard, or of each parts-th from the part-th on (from 1). FormatError for the first that is wrong.
// How many shards these are.
int64_t verify_shards(const std::filesystem::path& folder, int64_t part = 1, int64_t parts = 1);

// Joins folders of shards that were made with the same tokenizer and settings, the parts of `--shard i/n` above all:
// their files, linked or copied, one folder after another. ConfigError where they do not fit together.
void merge_shards(const std::vector<std::filesystem::path>& folders, const std::filesystem::path& output);

}  // namespace lathe::data
