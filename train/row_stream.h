// Rows that come once, in order, and of which nobody knows how many there are: standard input, a pipe, a file larger
// than memory. They are read as steps ask for them, in groups (64 rows; 1000 where they are packed, as TRL packs them),
// and forgotten when the step is over, so that memory does not grow. What a line becomes is a method's own.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/packing/packing.h"
#include "data/readers/row_source.h"
#include "data/rows/sft_rows.h"
#include "text/model_text.h"
#include "train/data_parallel.h"
#include "train/token_rows.h"

namespace lathe::train {

// What a line became.
struct StreamedRow {
  std::vector<data::SftExample> sequences;
  std::string text;             // TrainingSet::row_text()
  std::string error;            // why it is no row: the rest is empty then
  std::string dropped_because;  // there is nothing in it to learn from
};
// `file` and `line` say where the line of JSON stands. Any number of threads may call it.
using StreamedRowReader = std::function<StreamedRow(std::string_view json, const std::string& file, int64_t line)>;

// A method's reader of rows beside what it borrows.
template <class Rows, class Options>
struct HeldRowReader {
  HeldRowReader(const text::ModelText& text, Options own)
      : tokenizer(text.tokenizer),
        chat_template(text.chat_template),
        options(std::move(own)),
        rows(*tokenizer, chat_template.get(), options) {}
  HeldRowReader(const HeldRowReader&) = delete;
  HeldRowReader& operator=(const HeldRowReader&) = delete;

  std::shared_ptr<const data::Tokenizer> tokenizer;
  std::shared_ptr<const data::ChatTemplate> chat_template;
  Options options;
  Rows rows;
};

struct RowStreamSettings {
  std::string input;  // a path, a pipe, a folder of save_to_disk, or "-"
  StreamedRowReader read;
  int64_t longest_sequence = 0;                       // tokens that a sequence may have
  int64_t sequences_per_row = 1;                      // without packing
  std::optional<data::PackingStrategy> packing = {};  // of rows with one sequence, into longest_sequence tokens
  int64_t rows_drawn = 0;                             // by the whole run
  int64_t rows_per_draw = 1;  // a row is held until one is asked for that comes so many after it
  // Of several processes the main one alone reads the input and gives the others what came: all of them ask for rows
  // alike.
  DataParallel parallel = {};
};

// Where a run looks for a stream; ConfigError (streaming, dataset) for several sources, shards, or a path that is not
// there.
std::string stream_input(const std::string& dataset);

class RowStream final : public TokenRows {
 public:
  // Errors as open_row_source()'s.
  explicit RowStream(RowStreamSettings settings);

  // What is known of all rows before they have come: as many as the run draws, and as long as they may be.
  int64_t rows() const override { return settings_.rows_drawn; }
  int64_t sequences() const override { return settings_.rows_drawn * settings_.sequences_per_row; }
  int64_t tokens() const override { return 0; }
  int64_t labelled_tokens() const override { return 0; }
  int64_t longest_sequence() const override { return settings_.longest_sequence; }
  std::map<int64_t, int64_t> row_lengths() const override {
    return {{longest_sequence() * settings_.sequences_per_row, rows()}};
  }
  uint64_t fingerprint() const override { return 0; }  // the checkpoint has a hash of the rows that have come

  // Read as far as the row. StepAbandoned where the stream ends before it or has a row that is none.
  std::pair<int64_t, int64_t> sequences_of_row(int64_t row) const override;
  // Of rows that are held.
  int64_t sequence_tokens(int64_t sequence) const override;
  void read_sequence(int64_t sequence, std::span<int32_t> ids, std::span<int32_t> labels) const override;
  std::string row_text(int64_t row) const override;

  // row_stream.json: the group of rows that the next one is in, with hashes of what was read before it and of all that
  // the rows learnt so far were made of.
  void save(const std::filesystem::path& folder, int64_t rows_learnt) const;
  // Reads past what has been learnt, making no tokens of it. FormatError where the stream does not have the same rows
  // there; it is to be given again from its start. Of several processes the main one alone calls it, and then all of
  // them share_place().
  void load(const std::filesystem::path& folder);
  void share_place();

 private:
  struct Place {
    int64_t inputs = 0;  // rows read before it, dropped ones too
    uint64_t xxh64 = 0;  // of their text
    int64_t row = 0, sequence = 0;
    bool operator==(const Place&) const = default;
  };
  struct InputsRead {
    int64_t inputs = 0;
    uint64_t xxh64 = 0;
    bool operator==(const InputsRead&) const = default;
  };
  // A row as it was read.
  struct Input {
    std::string text, file;
    int64_t line = 0;
    InputsRead end;  // with it
  };
  // Where a run that was stopped goes on.
  struct Resumption {
    std::string file;  // row_stream.json
    Place begin;       // of the group that the next row is in
    int64_t rows_learnt = 0;
    InputsRead learnt;
  };
  struct Group {
    Place begin;
    std::vector<std::vector<data::SftExample>> rows;
    std::vector<std::string> texts;  // of each row
    std::vector<InputsRead> needed;  // for each row: what had been read when it was whole
    int64_t sequences = 0;
  };
  std::optional<data::TextLine> next_input() const;
  std::vector<Input> next_inputs() const;  // of a group, on every process
  static std::string to_bytes(const std::vector<Input>& inputs);
  static std::vector<Input> from_bytes(const std::string& bytes);
  [[noreturn]] void refuse(const Resumption& resumption) const;
  void check_learnt(const Resumption& resumption);
  void read_group() const;
  std::vector<std::vector<data::SftExample>> packed(const std::vector<std::vector<data::SftExample>>& singles) const;
  const data::SftExample& sequence(int64_t index) const;
  const Group* group_of(int64_t row) const;  // null where it is not held

  RowStreamSettings settings_;
  std::vector<std::string> files_;
  mutable std::unique_ptr<data::RowSource> source_;
  mutable size_t next_file_ = 0;
  mutable Place end_;  // of what has been read
  mutable std::deque<Group> groups_;
  Resumption resumption_;  // what load() has found
};

}  // namespace lathe::train
