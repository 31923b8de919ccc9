#include "data/shards/shards.h"

#include <algorithm>
#include <span>

#include "core/error.h"

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
}

const ShardFile& Shards::file(size_t index) const {
  const std::lock_guard lock(opening_);
  if (!files_[index]) {
    const ShardEntry& entry = manifest_.files[index];
    auto file = std::make_unique<const ShardFile>(folder_ / entry.name, entry.header_xxh64, cache_);
    if (file->rows() != entry.rows || file->sequences() != entry.sequences || file->tokens() != entry.tokens)
      throw FormatError((folder_ / entry.name).string(), -1, "has other rows than manifest.json says");
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
  const size_t index = file_with(sequence_begin_, sequence);
  const size_t first = ids.size(), first_label = labels.size();
  const ShardFile& shard = file(index);
  shard.append_sequence(sequence - sequence_begin_[index], ids, labels);
  const auto wrong = [&](int32_t token) {
    return FormatError((folder_ / manifest_.files[index].name).string(), -1,
                       "holds the token " + std::to_string(token) + ", and manifest.json says there are " +
                           std::to_string(manifest_.vocab_size));
  };
  const auto is_token = [&](int32_t id) { return id >= 0 && id < manifest_.vocab_size; };
  // Without a branch, so that it costs a fraction of the reading.
  int32_t least = 0, most = 0;
  for (const int32_t id : std::span(ids).subspan(first)) {
    least = std::min(least, id);
    most = std::max(most, id);
  }
  if (!is_token(least)) throw wrong(least);
  if (!is_token(most)) throw wrong(most);
  if (!shard.has_label_values()) return;
  for (const int32_t label : std::span(labels).subspan(first_label))
    if (!is_token(label) && label != ignored_label) throw wrong(label);
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
