// Rows of text into a folder of shards: in parallel, in the order of the input, in memory that does not grow with it,
// and so that a process that is killed at any moment goes on where it was, to the same bytes.
//
// Each shard is written aside, synced and renamed; after it progress.json, which says how many rows the shards so far
// took. A new process reads past those rows, comparing a hash of them, and goes on. manifest.json comes last.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/packing/packing.h"
#include "data/readers/row_part.h"
#include "data/readers/row_source.h"
#include "data/shards/manifest.h"
#include "data/shards/row_kinds.h"
#include "data/shards/shard_file.h"

namespace lathe::data {

inline constexpr size_t max_listed_bad_rows = 100;

std::string shard_name(size_t index);  // "shard-00000.bin"

enum class BadRows { error, skip };
enum class RowFormat { by_name, json_lines, text };  // by_name: text for .txt, .txt.gz and .txt.zst

struct ShardTokenizationSettings {
  std::vector<std::string> inputs;  // paths, folders of save_to_disk among them, or "-"
  std::filesystem::path output;
  std::string model;  // its name, for messages
  RowKind kind = RowKind::sft;
  SftOptions rows;                // of kind sft; its vocab_size is of all
  PreferenceOptions preferences;  // of kind preference
  PackingStrategy packing_strategy = PackingStrategy::bfd;
  std::string packing_strategy_name = "bfd";
  RowFormat format = RowFormat::by_name;
  BadRows bad_rows = BadRows::error;
  Compression compression = Compression::none;
  int64_t shard_tokens = int64_t{16} << 20;  // a shard ends with the row that reaches them, or 8 bytes of text for each
  int64_t max_row_bytes = default_max_row_bytes;
  RowPart part;  // that this process takes
};

class ShardTokenization {
 public:
  // Makes the folder, or goes on in it. Tokenizer and template must outlive this. ConfigError where the folder holds
  // other shards, where another process writes them, and for settings that make no sense.
  ShardTokenization(ShardTokenizationSettings settings, const Tokenizer& tokenizer, const ChatTemplate* chat_template);
  ~ShardTokenization();

  // Tokenises some more rows. False when all are done and the manifest is written. FormatError with file and line for a
  // bad row; FormatError when the rows before the place to go on from are not those that were read then.
  bool step();

  const ShardTotals& totals() const { return totals_; }
  int64_t text_bytes() const { return text_bytes_; }         // of the rows tokenised by this process
  int64_t source_bytes() const;                              // of the inputs read, packed as they are
  int64_t rows_done_before() const { return resume_rows_; }  // by earlier processes
  bool done() const { return done_; }                        // at once where all was done before

 private:
  struct Row {
    std::string text;
    int64_t line = 0;
    bool is_text = false;
    std::string source;
    uint64_t read_hash = 0;  // of all rows up to this one
    int64_t rows_read = 0;   // rows up to and with this one
  };
  // Rows on their way: read, tokenised, added to a shard.
  struct Batch {
    std::vector<Row> rows;
    std::vector<ShardRow> made;  // of each row, once it is tokenised
    size_t bytes = 0;            // of text
    std::exception_ptr failure;  // of the row after the last
  };
  Batch read_batch();
  void add_batch(Batch batch);
  bool next_row(Row& row);
  bool open_next_input();
  void add(Row& row, ShardRow& prepared);
  void add_sequences(ShardRow& row);
  void pack_pending();
  void add_to_totals(std::span<const int32_t> labels, bool new_row);
  void end_row(int64_t tokens);
  void write_shard(int64_t rows_read, uint64_t read_hash);
  void read_progress();
  void finish();

  ShardTokenizationSettings settings_;
  const Tokenizer& tokenizer_;
  ShardRowReader reader_;
  nlohmann::ordered_json identity_;  // what must be equal to go on in a folder
  ShardManifest manifest_;
  ShardTotals totals_;
  ShardRows shard_;
  std::vector<SftExample> pending_;  // rows to be packed together
  std::vector<std::string> files_;   // of the inputs
  std::unique_ptr<RowSource> lines_;
  Batch next_, tokenised_;
  bool begun_ = false;
  size_t input_ = 0;  // the next to be opened
  int64_t input_rows_ = 0, rows_read_ = 0, text_bytes_ = 0, finished_source_bytes_ = 0;
  uint64_t read_hash_ = 0;
  int64_t resume_rows_ = 0;
  uint64_t resume_hash_ = 0;
  bool done_ = false;
  int folder_lock_ = -1;
};

}  // namespace lathe::data
