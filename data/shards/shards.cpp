#include "data/shards/shards.h"

#include <algorithm>
#include <span>

#include "core/error.h"
#include "data/rows/sft_rows.h"

namespace lathe::data {
namespace {

// The file that holds the item, by where files begin.
size_t file_with(const std::vector<int64_t>& begin, int64_t item) {
  return static_cast<size_t>(std::upper_bound(begin.begin(), begin.end(), item) - begin.begin()) - 1;
}

}  // namespace

Shards::Shards(const std::filesystem::path& folder) : folder_(folder), manifest_(read_shard_manifest(folder)) {
  row_begin_ = sequence_begin_ = {0};
  for (const ShardEntry& file : manifest_.files) {
    row_begin_.push_back(row_begin_.back() + file.rows);
    sequence_begin_.push_back(sequence_begin_.back() + file.sequences);
  }
  files_.resize(manifest_.files.size());
  opened_ = std::vector<std::atomic<const ShardFile*>>(files_.size());
}

const ShardFile& Shards::file(size_t index) const {
  if (const ShardFile* const opened = opened_[index].load(std::memory_order_acquire)) return *opened;
  const std::lock_guard lock(opening_);
  if (!files_[index]) {
    const ShardEntry& entry = manifest_.files[index];
    auto file = std::make_unique<const ShardFile>(folder_ / entry.name, entry.header_xxh64, cache_);
    if (file->rows() != entry.rows || file->sequences() != entry.sequences || file->tokens() != entry.tokens)
      throw FormatError((folder_ / entry.name).string(), -1, "has other rows than manifest.json says");
    opened_[index].store(file.get(), std::memory_order_release);
    files_[index] = std::move(file);
  }
  return *files_[index];
}

std::pair<int64_t, int64_t> Shards::sequences_of_row(int64_t row) const {
  const size_t index = file_with(row_begin_, row);
  const auto [first, last] = file(index).sequences_of_row(row - row_begin_[index]);
  return {sequence_begin_[index] + first, sequence_begin_[index] + last};
}

int64_t Shards::sequence_tokens(int64_t sequence) const {
  const size_t index = file_with(sequence_begin_, sequence);
  return file(index).sequence_tokens(sequence - sequence_begin_[index]);
}

std::string Shards::row_text(int64_t row) const {
  const size_t index = file_with(row_begin_, row);
  return file(index).row_text(row - row_begin_[index]);
}

void Shards::append_sequence(int64_t sequence, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const {
  const auto tokens = static_cast<size_t>(sequence_tokens(sequence));
  ids.resize(ids.size() + tokens);
  labels.resize(labels.size() + tokens);
  read_sequences(sequence, sequence + 1, std::span(ids).last(tokens), std::span(labels).last(tokens));
}

void Shards::prefetch_sequences(int64_t first, int64_t last) const {
  const size_t index = file_with(sequence_begin_, first);
  const ShardFile* const shard = opened_[index].load(std::memory_order_acquire);
  if (shard != nullptr) shard->prefetch_sequences(first - sequence_begin_[index], last - sequence_begin_[index]);
}

void Shards::read_sequences(int64_t first, int64_t last, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const size_t index = file_with(sequence_begin_, first);
  const ShardFile& shard = file(index);
  const uint32_t largest =
      shard.read_sequences(first - sequence_begin_[index], last - sequence_begin_[index], ids, labels);
  const auto expect_token = [&](uint32_t token) {
    if (token < static_cast<uint64_t>(manifest_.vocab_size)) return;
    throw FormatError((folder_ / manifest_.files[index].name).string(), -1,
                      "holds the token " + std::to_string(token) + ", and manifest.json says there are " +
                          std::to_string(manifest_.vocab_size));
  };
  expect_token(largest);
  if (!shard.has_label_values()) return;
  for (const int32_t label : labels)
    if (label != ignored_label) expect_token(static_cast<uint32_t>(label));
}

int64_t verify_shards(const std::filesystem::path& folder, int64_t part, int64_t parts) {
  const std::vector<ShardEntry> entries = read_shard_manifest(folder).files;
  int64_t verified = 0;
  for (int64_t i = part - 1; i < std::ssize(entries); i += parts, ++verified) {
    const ShardEntry& entry = entries[static_cast<size_t>(i)];
    const ShardFile file(folder / entry.name, entry.header_xxh64);
    file.verify();
    if (file.rows() != entry.rows || file.sequences() != entry.sequences || file.tokens() != entry.tokens)
      throw FormatError((folder / entry.name).string(), -1, "has other rows than manifest.json says");
  }
  return verified;
}

}  // namespace lathe::data
