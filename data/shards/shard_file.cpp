#include "data/shards/shard_file.h"

#include <sys/mman.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "core/atomic_write.h"
#include "core/error.h"
#include "data/rows/sft_rows.h"

namespace lathe::data {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped as they lie");

constexpr char magic[8] = {'L', 'A', 'T', 'H', 'E', 'S', 'H', 'D'};
constexpr uint32_t version = 1, block_bytes = 1 << 16;
constexpr size_t hashed_header_bytes = sizeof(ShardHeader) - sizeof(uint64_t);

uint64_t aligned(uint64_t offset) { return (offset + 7) / 8 * 8; }
uint64_t blocks_of(const ShardHeader& header) {
  return (header.hashes_at - sizeof(ShardHeader) + block_bytes - 1) / block_bytes;
}
uint64_t label_bytes(const ShardHeader& header) {
  return header.labels == ShardLabels::mask ? (header.tokens + 7) / 8 : header.tokens * 4;
}

// Where everything lies, from the counts.
void lay_out(ShardHeader& header) {
  header.ids_at = sizeof(ShardHeader);
  header.labels_at = aligned(header.ids_at + header.tokens * header.id_bytes);
  header.sequence_begin_at = aligned(header.labels_at + label_bytes(header));
  header.row_begin_at = aligned(header.sequence_begin_at + (header.sequences + 1) * 4);
  header.hashes_at = aligned(header.row_begin_at + (header.rows + 1) * 4);
  header.file_bytes = header.hashes_at + blocks_of(header) * 8;
}

}  // namespace

void ShardRows::add_row(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  row_begin_.push_back(static_cast<uint32_t>(sequences()));
  add_to_row(ids, labels);
}

void ShardRows::add_to_row(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  if (ids.empty() || ids.size() != labels.size()) throw ShapeError("a sequence needs a label for each of its tokens");
  if (labels_.empty() && std::ranges::mismatch(ids, labels, [](int32_t id, int32_t label) {
                           return label == id || label == ignored_label;
                         }).in1 != ids.end()) {
    // The first label of its own in this shard: from here on each label is kept as a value.
    for (size_t i = 0; i < ids_.size(); ++i) labels_.push_back(learnt_[i] ? ids_[i] : ignored_label);
    labels_.insert(labels_.end(), labels.begin(), labels.end());
  } else if (!labels_.empty()) {
    labels_.insert(labels_.end(), labels.begin(), labels.end());
  }
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  for (const int32_t label : labels) learnt_.push_back(label != ignored_label);
  sequence_begin_.push_back(static_cast<uint32_t>(ids_.size()));
}

uint64_t ShardRows::write(const std::filesystem::path& path, int64_t vocab_size) const {
  ShardHeader header = {};
  std::copy(std::begin(magic), std::end(magic), header.magic);
  header.version = version;
  header.id_bytes = vocab_size <= 65536 ? 2 : 4;
  header.labels = labels_.empty() ? ShardLabels::mask : ShardLabels::values;
  header.block_bytes = block_bytes;
  header.tokens = ids_.size();
  header.sequences = static_cast<uint64_t>(sequences());
  header.rows = static_cast<uint64_t>(rows());
  lay_out(header);

  std::vector<std::byte> bytes(header.file_bytes);
  std::byte* const ids = bytes.data() + header.ids_at;
  for (size_t i = 0; i < ids_.size(); ++i) std::memcpy(ids + i * header.id_bytes, &ids_[i], header.id_bytes);
  std::byte* const labels = bytes.data() + header.labels_at;
  if (header.labels == ShardLabels::mask) {
    for (size_t i = 0; i < learnt_.size(); ++i)
      if (learnt_[i]) labels[i / 8] |= std::byte{1} << (i % 8);
  } else {
    std::memcpy(labels, labels_.data(), labels_.size() * 4);
  }
  std::memcpy(bytes.data() + header.sequence_begin_at, sequence_begin_.data(), sequence_begin_.size() * 4);
  std::memcpy(bytes.data() + header.row_begin_at, row_begin_.data(), row_begin_.size() * 4);
  const auto row_end = static_cast<uint32_t>(sequences());
  std::memcpy(bytes.data() + header.row_begin_at + row_begin_.size() * 4, &row_end, 4);
  for (uint64_t block = 0; block < blocks_of(header); ++block) {
    const uint64_t begin = sizeof(ShardHeader) + block * block_bytes;
    const uint64_t hash = XXH64(bytes.data() + begin, std::min<uint64_t>(block_bytes, header.hashes_at - begin), 0);
    std::memcpy(bytes.data() + header.hashes_at + block * 8, &hash, 8);
  }
  header.hashes_xxh64 = XXH64(bytes.data() + header.hashes_at, header.file_bytes - header.hashes_at, 0);
  header.header_xxh64 = XXH64(&header, hashed_header_bytes, 0);
  std::memcpy(bytes.data(), &header, sizeof header);
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
  return header.header_xxh64;
}

ShardFile::ShardFile(const std::filesystem::path& path, uint64_t header_xxh64)
    : file_(path.string()), bytes_(MappedFile::open(path)) {
  const std::span<const std::byte> bytes = bytes_->bytes();
  if (bytes.size() < sizeof header_) throw FormatError(file_, -1, "is too short to be a shard");
  std::memcpy(&header_, bytes.data(), sizeof header_);
  check_header(header_xxh64);
  if (XXH64(bytes.data() + header_.hashes_at, header_.file_bytes - header_.hashes_at, 0) != header_.hashes_xxh64)
    throw FormatError(file_, static_cast<int64_t>(header_.hashes_at),
                      "the table of hashes is not what was written; copy the shard again, or make it again");
  // Rows are read in a shuffled order: reading ahead would fill memory with neighbours.
  ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_RANDOM);
  whole_ = std::make_unique<std::atomic<bool>[]>(blocks_of(header_));
}

void ShardFile::check_header(uint64_t header_xxh64) const {
  if (!std::equal(std::begin(magic), std::end(magic), header_.magic))
    throw FormatError(file_, 0, "is no shard: it does not begin with LATHESHD");
  if (header_.version > version)
    throw FormatError(file_, 8,
                      "is a shard of version " + std::to_string(header_.version) + ", and this program reads version " +
                          std::to_string(version) + "; use the program that wrote it, or a newer one");
  if (XXH64(&header_, hashed_header_bytes, 0) != header_.header_xxh64)
    throw FormatError(file_, 0, "the header is not what was written; copy the shard again, or make it again");
  if (header_.header_xxh64 != header_xxh64)
    throw FormatError(file_, 0, "is another shard than the one that manifest.json lists under this name");
  ShardHeader expected = header_;
  // Counts so large that sums could wrap are no shard's.
  constexpr uint64_t most = uint64_t{1} << 32;
  const bool sane = header_.version == version && (header_.id_bytes == 2 || header_.id_bytes == 4) &&
                    (header_.labels == ShardLabels::mask || header_.labels == ShardLabels::values) &&
                    header_.block_bytes == block_bytes && header_.tokens < most && header_.sequences < most &&
                    header_.rows < most;
  if (sane) lay_out(expected);
  if (!sane || std::memcmp(&expected, &header_, sizeof header_) != 0)
    throw FormatError(file_, 0, "the header contradicts itself");
  if (bytes_->bytes().size() != header_.file_bytes)
    throw FormatError(file_, static_cast<int64_t>(bytes_->bytes().size()),
                      "ends here, and should have " + std::to_string(header_.file_bytes) +
                          " bytes; copy the shard again, or make it again");
}

const std::byte* ShardFile::checked(uint64_t offset, uint64_t bytes) const {
  const std::byte* const data = bytes_->bytes().data();
  if (bytes == 0) return data + offset;
  const uint64_t last = (offset + bytes - 1 - sizeof header_) / block_bytes;
  for (uint64_t block = (offset - sizeof header_) / block_bytes; block <= last; ++block) {
    if (whole_[block].load(std::memory_order_relaxed)) continue;
    const uint64_t begin = sizeof header_ + block * block_bytes;
    uint64_t written = 0;
    std::memcpy(&written, data + header_.hashes_at + block * 8, 8);
    if (XXH64(data + begin, std::min<uint64_t>(block_bytes, header_.hashes_at - begin), 0) != written)
      throw FormatError(
          file_, static_cast<int64_t>(begin),
          "block " + std::to_string(block) + " is not what was written; copy the shard again, or make it again");
    whole_[block].store(true, std::memory_order_relaxed);
  }
  return data + offset;
}

// [index] and [index + 1] of an array of borders, which rise up to `end`.
std::pair<uint32_t, uint32_t> ShardFile::bounds_at(uint64_t array_at, int64_t index, uint64_t end,
                                                   const char* what) const {
  const uint64_t offset = array_at + static_cast<uint64_t>(index) * 4;
  uint32_t bounds[2];
  std::memcpy(bounds, checked(offset, sizeof bounds), sizeof bounds);
  if (bounds[0] >= bounds[1] || bounds[1] > end)
    throw FormatError(file_, static_cast<int64_t>(offset), std::string("a ") + what + " ends before it begins");
  return {bounds[0], bounds[1]};
}

std::pair<int64_t, int64_t> ShardFile::sequences_of_row(int64_t row) const {
  return bounds_at(header_.row_begin_at, row, header_.sequences, "row");
}

int64_t ShardFile::sequence_tokens(int64_t sequence) const {
  const auto [begin, end] = bounds_at(header_.sequence_begin_at, sequence, header_.tokens, "sequence");
  return end - begin;
}

void ShardFile::append_sequence(int64_t sequence, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const {
  const auto [begin, end] = bounds_at(header_.sequence_begin_at, sequence, header_.tokens, "sequence");
  const std::byte* from =
      checked(header_.ids_at + uint64_t{begin} * header_.id_bytes, uint64_t{end - begin} * header_.id_bytes);
  const size_t first = ids.size();
  for (uint32_t token = begin; token < end; ++token, from += header_.id_bytes) {
    uint32_t id = 0;
    std::memcpy(&id, from, header_.id_bytes);
    ids.push_back(static_cast<int32_t>(id));
  }
  if (header_.labels == ShardLabels::values) {
    const std::byte* values = checked(header_.labels_at + uint64_t{begin} * 4, uint64_t{end - begin} * 4);
    labels.resize(labels.size() + (end - begin));
    std::memcpy(labels.data() + labels.size() - (end - begin), values, uint64_t{end - begin} * 4);
    return;
  }
  const std::byte* const mask = checked(header_.labels_at + begin / 8, (end - 1) / 8 - begin / 8 + 1) - begin / 8;
  for (uint32_t token = begin; token < end; ++token) {
    const bool learnt = (mask[token / 8] >> (token % 8) & std::byte{1}) != std::byte{0};
    labels.push_back(learnt ? ids[first + (token - begin)] : ignored_label);
  }
}

void ShardFile::verify() const {
  checked(sizeof header_, header_.hashes_at - sizeof header_);
  int64_t sequence = 0, token = 0;
  for (int64_t row = 0; row < rows(); ++row) {
    const auto [first, last] = sequences_of_row(row);
    if (first != sequence) throw FormatError(file_, -1, "rows do not follow one another");
    sequence = last;
  }
  for (int64_t at = 0; at < sequences(); ++at) token += sequence_tokens(at);
  if (sequence != sequences() || token != tokens()) throw FormatError(file_, -1, "rows do not hold every token");
}

}  // namespace lathe::data
