#include "data/shards/shard_file.h"

#include <sys/mman.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "core/atomic_write.h"
#include "core/error.h"
#include "data/rows/sft_rows.h"
#include "data/shards/token_unpacking.h"

namespace lathe::data {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are mapped as they lie");

constexpr char magic[8] = {'L', 'A', 'T', 'H', 'E', 'S', 'H', 'D'};
constexpr uint32_t plain_version = 1, newest_version = 2, block_bytes = 1 << 16;
constexpr size_t hashed_header_bytes = sizeof(ShardHeader) - sizeof(uint64_t);
constexpr int zstd_level = 3;
constexpr uint64_t cache_line = 64;
constexpr size_t readable_behind = 8;  // token_unpacking.h; what is mapped has its table of hashes there

uint64_t aligned(uint64_t offset) { return (offset + 7) / 8 * 8; }
uint64_t blocks_of(const ShardHeader& header) {
  return (header.hashes_at - sizeof(ShardHeader) + block_bytes - 1) / block_bytes;
}
uint64_t label_bytes(const ShardHeader& header) {
  return header.labels == ShardLabels::mask ? (header.tokens + 7) / 8 : header.tokens * 4;
}
uint64_t text_bytes_at(const ShardHeader& header) { return header.text_at + (header.rows + 1) * 8; }

// Where everything lies in a file that is not compressed, from the counts.
void lay_out(ShardHeader& header, bool has_text, uint64_t text_bytes) {
  header.ids_at = sizeof(ShardHeader);
  header.labels_at = aligned(header.ids_at + header.tokens * header.id_bytes);
  header.sequence_begin_at = aligned(header.labels_at + label_bytes(header));
  header.row_begin_at = aligned(header.sequence_begin_at + (header.sequences + 1) * 4);
  const uint64_t row_begin_end = aligned(header.row_begin_at + (header.rows + 1) * 4);
  header.text_at = has_text ? row_begin_end : 0;
  header.hashes_at = has_text ? aligned(text_bytes_at(header) + text_bytes) : row_begin_end;
  header.file_bytes = header.hashes_at + blocks_of(header) * 8;
}

// The body in blocks as they are stored, and where each ends in the file.
struct Blocks {
  std::vector<std::byte> bytes;
  std::vector<uint64_t> end, hash;
};

Blocks blocks_from(std::span<const std::byte> body, Compression compression) {
  Blocks blocks;
  std::vector<std::byte> frame(ZSTD_compressBound(block_bytes));
  for (size_t begin = 0; begin < body.size(); begin += block_bytes) {
    std::span<const std::byte> block = body.subspan(begin, std::min<size_t>(block_bytes, body.size() - begin));
    if (compression == Compression::zstd) {
      const size_t size = ZSTD_compress(frame.data(), frame.size(), block.data(), block.size(), zstd_level);
      if (ZSTD_isError(size)) throw Error(std::string("zstd: ") + ZSTD_getErrorName(size));
      if (size < block.size()) block = std::span(frame).first(size);
    }
    blocks.hash.push_back(XXH64(block.data(), block.size(), 0));
    blocks.bytes.insert(blocks.bytes.end(), block.begin(), block.end());
    blocks.end.push_back(sizeof(ShardHeader) + blocks.bytes.size());
  }
  return blocks;
}

void append(std::vector<std::byte>& bytes, const std::vector<uint64_t>& values) {
  const auto* const first = reinterpret_cast<const std::byte*>(values.data());
  bytes.insert(bytes.end(), first, first + values.size() * sizeof(uint64_t));
}

// Ids whose labels lie as values; the largest, as token_unpacking.h has it.
template <class Id>
uint32_t widen(const std::byte* from, std::span<int32_t> ids) {
  uint32_t largest = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    Id id = 0;
    std::memcpy(&id, from + i * sizeof(Id), sizeof(Id));
    ids[i] = static_cast<int32_t>(id);
    largest = std::max<uint32_t>(largest, id);
  }
  return largest;
}

}  // namespace

void ShardRows::add_row(std::span<const int32_t> ids, std::span<const int32_t> labels, std::string_view text) {
  row_begin_.push_back(static_cast<uint32_t>(sequences()));
  text_begin_.push_back(text_.size());
  text_ += text;
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

uint64_t ShardRows::write(const std::filesystem::path& path, int64_t vocab_size, Compression compression) const {
  ShardHeader header = {};
  std::copy(std::begin(magic), std::end(magic), header.magic);
  header.version = text_.empty() && compression == Compression::none ? plain_version : newest_version;
  header.id_bytes = vocab_size <= 65536 ? 2 : 4;
  header.labels = labels_.empty() ? ShardLabels::mask : ShardLabels::values;
  header.block_bytes = block_bytes;
  header.tokens = ids_.size();
  header.sequences = static_cast<uint64_t>(sequences());
  header.rows = static_cast<uint64_t>(rows());
  lay_out(header, !text_.empty(), text_.size());

  std::vector<std::byte> bytes(header.hashes_at);
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
  if (header.text_at > 0) {
    const uint64_t text_end = text_.size();
    std::memcpy(bytes.data() + header.text_at, text_begin_.data(), text_begin_.size() * 8);
    std::memcpy(bytes.data() + header.text_at + text_begin_.size() * 8, &text_end, 8);
    std::memcpy(bytes.data() + text_bytes_at(header), text_.data(), text_.size());
  }
  Blocks blocks = blocks_from(std::span(bytes).subspan(sizeof header), compression);
  bytes.resize(sizeof header);
  bytes.insert(bytes.end(), blocks.bytes.begin(), blocks.bytes.end());
  bytes.resize(aligned(bytes.size()));
  const size_t table_at = bytes.size();
  if (compression != Compression::none) {
    header.packed_at = table_at;
    append(bytes, blocks.end);
  }
  append(bytes, blocks.hash);
  header.file_bytes = bytes.size();
  header.hashes_xxh64 = XXH64(bytes.data() + table_at, bytes.size() - table_at, 0);
  header.header_xxh64 = XXH64(&header, hashed_header_bytes, 0);
  std::memcpy(bytes.data(), &header, sizeof header);
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
  return header.header_xxh64;
}

ShardFile::ShardFile(const std::filesystem::path& path, uint64_t header_xxh64, std::shared_ptr<BlockCache> cache)
    : file_(path.string()), bytes_(MappedFile::open(path)), cache_(std::move(cache)) {
  const std::span<const std::byte> bytes = bytes_->bytes();
  if (bytes.size() < sizeof header_) throw FormatError(file_, -1, "is too short to be a shard");
  std::memcpy(&header_, bytes.data(), sizeof header_);
  check_header(header_xxh64);
  check_table();
  // Rows are read in a shuffled order: reading ahead would fill memory with neighbours.
  ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_RANDOM);
  if (header_.packed_at == 0) {
    whole_ = std::make_unique<std::atomic<bool>[]>(blocks());
  } else if (!cache_) {
    cache_ = std::make_shared<BlockCache>(16);
  }
}

void ShardFile::check_header(uint64_t header_xxh64) {
  if (!std::equal(std::begin(magic), std::end(magic), header_.magic))
    throw FormatError(file_, 0, "is no shard: it does not begin with LATHESHD");
  if (header_.version > newest_version)
    throw FormatError(file_, 8,
                      "is a shard of version " + std::to_string(header_.version) + ", and this program reads version " +
                          std::to_string(newest_version) + "; use the program that wrote it, or a newer one");
  if (XXH64(&header_, hashed_header_bytes, 0) != header_.header_xxh64)
    throw FormatError(file_, 0, "the header is not what was written; copy the shard again, or make it again");
  if (header_.header_xxh64 != header_xxh64)
    throw FormatError(file_, 0, "is another shard than the one that manifest.json lists under this name");
  ShardHeader expected = header_;
  // Counts so large that sums could wrap are no shard's.
  constexpr uint64_t most = uint64_t{1} << 32, most_bytes = uint64_t{1} << 48;
  const bool extended = header_.text_at > 0 || header_.packed_at > 0;
  bool sane = header_.version == (extended ? newest_version : plain_version) &&
              (header_.id_bytes == 2 || header_.id_bytes == 4) &&
              (header_.labels == ShardLabels::mask || header_.labels == ShardLabels::values) &&
              header_.block_bytes == block_bytes && header_.tokens < most && header_.sequences < most &&
              header_.rows < most && header_.hashes_at < most_bytes && header_.text_at < most_bytes &&
              (header_.text_at == 0 || text_bytes_at(header_) <= header_.hashes_at);
  if (sane) {
    lay_out(expected, header_.text_at > 0, header_.hashes_at - text_bytes_at(header_));
    if (header_.packed_at > 0) {
      sane = header_.packed_at >= sizeof header_ && header_.packed_at < most_bytes && header_.packed_at % 8 == 0;
      expected.file_bytes = header_.packed_at + blocks_of(expected) * 16;
    }
  }
  if (!sane || std::memcmp(&expected, &header_, sizeof header_) != 0)
    throw FormatError(file_, 0, "the header contradicts itself");
  if (bytes_->bytes().size() != header_.file_bytes)
    throw FormatError(file_, static_cast<int64_t>(bytes_->bytes().size()),
                      "ends here, and should have " + std::to_string(header_.file_bytes) +
                          " bytes; copy the shard again, or make it again");
}

void ShardFile::check_table() const {
  const uint64_t table_at = header_.packed_at > 0 ? header_.packed_at : header_.hashes_at;
  const std::byte* const table = bytes_->bytes().data() + table_at;
  if (XXH64(table, header_.file_bytes - table_at, 0) != header_.hashes_xxh64)
    throw FormatError(file_, static_cast<int64_t>(table_at),
                      "the table of hashes is not what was written; copy the shard again, or make it again");
  uint64_t end = sizeof header_;
  for (uint64_t block = 0; header_.packed_at > 0 && block < blocks(); ++block) {
    const uint64_t begin = end;
    std::memcpy(&end, table + block * 8, 8);
    if (end <= begin || end - begin > body_bytes(block) || end > header_.packed_at)
      throw FormatError(file_, static_cast<int64_t>(table_at + block * 8), "a block ends before it begins");
  }
  if (header_.packed_at == 0) return;
  // Zeros up to the table are in no block.
  const auto rest = bytes_->bytes().subspan(end, table_at - end);
  if (rest.size() >= 8 || std::ranges::any_of(rest, [](std::byte byte) { return byte != std::byte{0}; }))
    throw FormatError(file_, static_cast<int64_t>(end), "bytes after the last block are not what was written");
}

uint64_t ShardFile::blocks() const { return blocks_of(header_); }

uint64_t ShardFile::body_bytes(uint64_t block) const {
  return std::min<uint64_t>(block_bytes, header_.hashes_at - sizeof header_ - block * block_bytes);
}

uint64_t ShardFile::hash_of(uint64_t block) const {
  const uint64_t hashes_at = header_.packed_at > 0 ? header_.packed_at + blocks() * 8 : header_.hashes_at;
  uint64_t hash = 0;
  std::memcpy(&hash, bytes_->bytes().data() + hashes_at + block * 8, 8);
  return hash;
}

std::span<const std::byte> ShardFile::stored(uint64_t block) const {
  if (header_.packed_at == 0) return bytes_->bytes().subspan(sizeof header_ + block * block_bytes, body_bytes(block));
  uint64_t begin = sizeof header_, end = 0;
  const std::byte* const ends = bytes_->bytes().data() + header_.packed_at;
  if (block > 0) std::memcpy(&begin, ends + (block - 1) * 8, 8);
  std::memcpy(&end, ends + block * 8, 8);
  return bytes_->bytes().subspan(begin, end - begin);
}

void ShardFile::check_block(uint64_t block) const {
  const std::span<const std::byte> bytes = stored(block);
  if (XXH64(bytes.data(), bytes.size(), 0) != hash_of(block))
    throw FormatError(
        file_, bytes.data() - bytes_->bytes().data(),
        "block " + std::to_string(block) + " is not what was written; copy the shard again, or make it again");
}

BlockCache::Block ShardFile::unpacked(uint64_t block) const {
  check_block(block);
  const std::span<const std::byte> bytes = stored(block);
  if (bytes.size() == body_bytes(block)) return {bytes.begin(), bytes.end()};
  BlockCache::Block body(body_bytes(block));
  if (ZSTD_decompress(body.data(), body.size(), bytes.data(), bytes.size()) != body.size())
    throw FormatError(file_, bytes.data() - bytes_->bytes().data(),
                      "block " + std::to_string(block) + " does not unpack to " + std::to_string(body.size()) +
                          " bytes; make the shard again");
  return body;
}

const std::byte* ShardFile::checked(uint64_t offset, uint64_t bytes, std::vector<std::byte>& scratch) const {
  const std::byte* const data = bytes_->bytes().data();
  if (bytes == 0) return data;
  const uint64_t first = (offset - sizeof header_) / block_bytes;
  const uint64_t last = (offset + bytes - 1 - sizeof header_) / block_bytes;
  if (header_.packed_at == 0) {
    for (uint64_t block = first; block <= last; ++block) {
      if (whole_[block].load(std::memory_order_relaxed)) continue;
      check_block(block);
      whole_[block].store(true, std::memory_order_relaxed);
    }
    return data + offset;
  }
  scratch.clear();
  for (uint64_t block = first; block <= last; ++block) {
    const auto body = cache_->get({this, block}, [&] { return unpacked(block); });
    const uint64_t begin = sizeof header_ + block * block_bytes;
    const uint64_t from = std::max(offset, begin) - begin, to = std::min(offset + bytes - begin, body->size());
    scratch.insert(scratch.end(), body->begin() + static_cast<std::ptrdiff_t>(from),
                   body->begin() + static_cast<std::ptrdiff_t>(to));
  }
  scratch.resize(scratch.size() + readable_behind);
  return scratch.data();
}

// [index] and [index + 1] of an array of borders, which rise up to `end`.
std::pair<uint32_t, uint32_t> ShardFile::bounds_at(uint64_t array_at, int64_t index, uint64_t end,
                                                   const char* what) const {
  const uint64_t offset = array_at + static_cast<uint64_t>(index) * 4;
  uint32_t bounds[2];
  std::vector<std::byte> scratch;
  std::memcpy(bounds, checked(offset, sizeof bounds, scratch), sizeof bounds);
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

std::string ShardFile::row_text(int64_t row) const {
  if (header_.text_at == 0) return "";
  const uint64_t offset = header_.text_at + static_cast<uint64_t>(row) * 8;
  const uint64_t all = header_.hashes_at - text_bytes_at(header_);
  uint64_t bounds[2];
  std::vector<std::byte> scratch;
  std::memcpy(bounds, checked(offset, sizeof bounds, scratch), sizeof bounds);
  if (bounds[0] > bounds[1] || bounds[1] > all)
    throw FormatError(file_, static_cast<int64_t>(offset), "a row's text ends before it begins");
  const uint64_t bytes = bounds[1] - bounds[0];
  const std::byte* const text = checked(text_bytes_at(header_) + bounds[0], bytes, scratch);
  return {reinterpret_cast<const char*>(text), bytes};
}

void ShardFile::prefetch_sequences(int64_t first, int64_t last) const {
  if (header_.packed_at > 0) return;
  const std::byte* const data = bytes_->bytes().data();
  const auto border = [&](int64_t index) {
    uint32_t at = 0;
    std::memcpy(&at, data + header_.sequence_begin_at + static_cast<uint64_t>(index) * 4, sizeof at);
    return std::min<uint64_t>(at, header_.tokens);
  };
  const uint64_t begin = border(first), end = border(last);
  const auto prefetch = [&](uint64_t from, uint64_t to) {
    for (uint64_t at = from; at < to; at += cache_line) __builtin_prefetch(data + at, 0, 2);
  };
  prefetch(header_.ids_at + begin * header_.id_bytes, header_.ids_at + end * header_.id_bytes);
  if (has_label_values())
    prefetch(header_.labels_at + begin * 4, header_.labels_at + end * 4);
  else
    prefetch(header_.labels_at + begin / 8, header_.labels_at + end / 8 + 1);
}

uint32_t ShardFile::read_sequences(int64_t first, int64_t last, std::span<int32_t> ids,
                                   std::span<int32_t> labels) const {
  const uint32_t begin = bounds_at(header_.sequence_begin_at, first, header_.tokens, "sequence").first;
  const uint32_t end = bounds_at(header_.sequence_begin_at, last - 1, header_.tokens, "sequence").second;
  if (begin >= end)
    throw FormatError(file_, static_cast<int64_t>(header_.sequence_begin_at) + first * 4,
                      "a sequence begins before the one that it follows");
  const size_t count = end - begin;
  if (ids.size() != count || labels.size() != count)
    throw ShapeError(file_ + ": there is room for " + std::to_string(ids.size()) + " ids and " +
                     std::to_string(labels.size()) + " labels, and the sequences have " + std::to_string(count));
  thread_local std::vector<std::byte> of_ids, of_labels;
  const std::byte* const from =
      checked(header_.ids_at + uint64_t{begin} * header_.id_bytes, uint64_t{count} * header_.id_bytes, of_ids);
  if (has_label_values()) {
    const std::byte* const values = checked(header_.labels_at + uint64_t{begin} * 4, uint64_t{count} * 4, of_labels);
    std::memcpy(labels.data(), values, labels.size_bytes());
    return header_.id_bytes == 2 ? widen<uint16_t>(from, ids) : widen<uint32_t>(from, ids);
  }
  const uint32_t first_byte = begin / 8;
  const std::byte* const mask = checked(header_.labels_at + first_byte, (end - 1) / 8 - first_byte + 1, of_labels);
  static const TokenUnpacking fastest = token_unpackings()[0];
  return fastest.unpack(header_.id_bytes == 2 ? StoredId::u16 : StoredId::u32, from, mask, begin % 8, count, ids.data(),
                        labels.data());
}

void ShardFile::verify() const {
  for (uint64_t block = 0; block < blocks(); ++block)
    header_.packed_at > 0 ? void(unpacked(block)) : check_block(block);
  int64_t sequence = 0, token = 0;
  for (int64_t row = 0; row < rows(); ++row) {
    const auto [first, last] = sequences_of_row(row);
    if (first != sequence) throw FormatError(file_, -1, "rows do not follow one another");
    sequence = last;
  }
  for (int64_t at = 0; at < sequences(); ++at) token += sequence_tokens(at);
  for (int64_t row = 0; header_.text_at > 0 && row < rows(); ++row) row_text(row);
  if (sequence != sequences() || token != tokens()) throw FormatError(file_, -1, "rows do not hold every token");
}

}  // namespace lathe::data
