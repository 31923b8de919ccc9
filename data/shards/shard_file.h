// One file of a folder of shards: rows of token ids with their labels, to be mapped. docs/data.md has the format for
// readers in other languages; everything is little-endian.
//
//   header   128 bytes (ShardHeader)
//   body     from byte 128 on, each part at a multiple of 8, zeros between them:
//            ids             u16 or u32 [tokens]
//            labels          one bit for each token, lowest first: 1 where the label is the id, 0 where it is -100;
//                            or i32 [tokens], where a label is neither
//            sequence_begin  u32 [sequences + 1]: in ids
//            row_begin       u32 [rows + 1]: in sequences. A packed row has several sequences
//            text            where rows carry text: u64 [rows + 1], in the bytes that follow
//   hashes   u64 for each 65536 bytes of the body (the last block may be shorter): xxHash-64, seed 0
//
// In a compressed file each block of the body is a zstd frame, or lies as it is where that is no longer; the table
// after them has u64 [blocks], where each ends in the file, before the hashes, which are of the blocks as stored.
//
// The header holds the hash of the table and its own, so that its hash stands for every byte of the file.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/mapped_file.h"
#include "data/shards/block_cache.h"

namespace lathe::data {

enum class ShardLabels : uint32_t { mask = 0, values = 1 };
enum class Compression { none, zstd };

struct ShardHeader {
  char magic[8];      // "LATHESHD"
  uint32_t version;   // 1, or 2 with text or compression
  uint32_t id_bytes;  // 2 or 4
  ShardLabels labels;
  uint32_t block_bytes;  // 65536
  uint64_t tokens, sequences, rows;
  // Bytes from the start of the file, were it not compressed. The body ends at hashes_at.
  uint64_t ids_at, labels_at, sequence_begin_at, row_begin_at, hashes_at;
  uint64_t file_bytes;
  uint64_t text_at;       // 0: no row carries text
  uint64_t packed_at;     // 0: not compressed; otherwise where the table begins in the file
  uint64_t hashes_xxh64;  // of the table: the hashes, and where blocks end
  uint64_t header_xxh64;  // of the 120 bytes before
};
static_assert(sizeof(ShardHeader) == 128);

// Rows on their way into a shard, end to end.
class ShardRows {
 public:
  // A new row with one sequence, or one more sequence in the last row. As many labels as ids, at least one; an id is 0
  // or more, a label too, or -100.
  // `text` is what the row carries beside its tokens.
  void add_row(std::span<const int32_t> ids, std::span<const int32_t> labels, std::string_view text = {});
  void add_to_row(std::span<const int32_t> ids, std::span<const int32_t> labels);

  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t rows() const { return static_cast<int64_t>(row_begin_.size()); }
  int64_t sequences() const { return static_cast<int64_t>(sequence_begin_.size()) - 1; }
  int64_t text_bytes() const { return static_cast<int64_t>(text_.size()); }
  // Writes the file aside, syncs and renames it; its header's hash. ids are u16 where the vocabulary has at most 65536
  // tokens. ResourceError where the disk is full.
  uint64_t write(const std::filesystem::path& path, int64_t vocab_size,
                 Compression compression = Compression::none) const;

 private:
  std::vector<int32_t> ids_;
  std::vector<bool> learnt_;
  std::vector<int32_t> labels_;  // of the tokens so far, once one of them is neither its id nor -100
  std::vector<uint32_t> sequence_begin_ = {0}, row_begin_;
  std::string text_;                  // of all rows, end to end
  std::vector<uint64_t> text_begin_;  // of each row
};

// A shard to read from. Blocks are compared with their hashes when they are first touched, compressed ones whenever
// they are unpacked. Any number of threads may read.
class ShardFile {
 public:
  // Maps the file and checks its header and hashes, whose cost does not grow with rows or tokens but for 8 bytes in
  // 65536. FormatError for a file that is none, was written by a newer version, was cut short, or is not the one with
  // this header hash.
  // Unpacked blocks go into the cache, or into one of its own.
  ShardFile(const std::filesystem::path& path, uint64_t header_xxh64, std::shared_ptr<BlockCache> cache = nullptr);

  int64_t rows() const { return static_cast<int64_t>(header_.rows); }
  int64_t sequences() const { return static_cast<int64_t>(header_.sequences); }
  int64_t tokens() const { return static_cast<int64_t>(header_.tokens); }
  // Labels lie as they are; otherwise each is its id or -100.
  bool has_label_values() const { return header_.labels == ShardLabels::values; }
  // The sequences [first, last) of a row.
  std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const;
  int64_t sequence_tokens(int64_t sequence) const;
  std::string row_text(int64_t row) const;
  // The sequences [first, last) end to end; as many of both as they have tokens. The largest id, as u32, so that the
  // caller can tell what is none.
  // These four: FormatError with file, block and offset for a block that is not what was written.
  // A hint that these will be read soon; it checks nothing.
  void prefetch_sequences(int64_t first, int64_t last) const;
  uint32_t read_sequences(int64_t first, int64_t last, std::span<int32_t> ids, std::span<int32_t> labels) const;
  // Every block and every border. FormatError for the first that is wrong.
  void verify() const;

 private:
  void check_header(uint64_t header_xxh64);
  void check_table() const;
  uint64_t blocks() const;
  uint64_t hash_of(uint64_t block) const;  // as written
  std::span<const std::byte> stored(uint64_t block) const;
  uint64_t body_bytes(uint64_t block) const;
  void check_block(uint64_t block) const;
  BlockCache::Block unpacked(uint64_t block) const;
  // Bytes of the body, after their blocks were found whole: where they are mapped, or in `scratch`.
  const std::byte* checked(uint64_t offset, uint64_t bytes, std::vector<std::byte>& scratch) const;
  std::pair<uint32_t, uint32_t> bounds_at(uint64_t array_at, int64_t index, uint64_t end, const char* what) const;

  std::string file_;
  std::shared_ptr<const MappedFile> bytes_;
  ShardHeader header_ = {};
  mutable std::unique_ptr<std::atomic<bool>[]> whole_;  // of each block, where they are mapped
  std::shared_ptr<BlockCache> cache_;                   // where they are compressed
};

}  // namespace lathe::data
