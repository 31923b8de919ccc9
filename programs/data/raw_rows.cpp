#include "programs/data/raw_rows.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <set>

#include "core/error.h"
#include "core/thread_pool.h"
#include "data/packing/packing.h"
#include "data/readers/row_source.h"
#include "data/readers/text_lines.h"
#include "data/shards/row_kinds.h"
#include "data/shards/shard_tokenization.h"
#include "programs/cli/progress.h"
#include "text/model_text.h"

namespace lathe::programs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t batch_rows = 1000, batch_bytes = 8 << 20;

struct RawRow {
  std::string text, source;
  int64_t line = 0;
  bool is_text = false;
};

// 0 where a size cannot be known: standard input, a pipe.
int64_t bytes_of(const std::vector<std::string>& files) {
  int64_t bytes = 0;
  for (const std::string& file : files) {
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    if (error) return 0;
    bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

class Reading {
 public:
  Reading(const RawRows& rows, const SftRowOptions& options, const text::ModelText& text)
      : rows_(rows),
        options_(options),
        sft_(options.parsed(text.vocab_size)),
        preferences_{sft_.max_length, sft_.truncation_mode, sft_.vocab_size},
        files_(data::files_of_input(rows.input, "ROWS")),
        reader_(data::row_kind(rows.kind), *text.tokenizer, text.chat_template.get(), sft_, preferences_,
                text.vocab_size),
        total_bytes_(bytes_of(files_)),
        progress_("read", total_bytes_ >> 20) {}

  RawRowFacts read() {
    for (const std::string& file : files_) {
      try {
        read_file(file);
      } catch (const FormatError& error) {
        add_pending();
        facts_.unreadable_files.emplace_back(error.what());
      }
    }
    end_group();
    facts_.warnings = facts_.totals.counts.warnings(sft_);
    return std::move(facts_);
  }

 private:
  void read_file(const std::string& file) {
    const std::unique_ptr<data::RowSource> source = data::open_row_source(file);
    for (bool first = true; const std::optional<data::TextLine> line = source->next(); first = false) {
      const bool is_text = !source->is_arrow() && data::is_text_name(source->name());
      if (first && !is_text && !source->is_arrow())
        data::expect_no_json_array(line->text, line->number, source->name());
      if (!rows_.part.has(rows_seen_++)) continue;
      pending_.push_back({std::string(line->text), source->name(), line->number, is_text});
      pending_bytes_ += line->text.size();
      if (pending_.size() >= batch_rows || pending_bytes_ >= batch_bytes) {
        add_pending();
        show_progress(source->source().bytes);
      }
    }
    add_pending();
    finished_bytes_ += source->source().bytes;
  }

  void add_pending() {
    std::vector<data::ShardRow> made(pending_.size());
    parallel_for(std::ssize(pending_), 4, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
        made[i] = reader_.read(pending_[i].text, pending_[i].is_text, pending_[i].source, pending_[i].line);
    });
    for (size_t i = 0; i < made.size(); ++i) add(pending_[i], made[i]);
    facts_.rows_read += std::ssize(pending_);
    facts_.text_bytes += static_cast<int64_t>(pending_bytes_);
    pending_.clear();
    pending_bytes_ = 0;
  }

  void show_progress(int64_t bytes) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    progress_.update(total_bytes_ > 0 ? (finished_bytes_ + bytes) >> 20 : 0,
                     fmt::format("MiB  {} rows  {} tokens  {:.1f} MB/s", facts_.rows_read, facts_.totals.tokens,
                                 static_cast<double>(facts_.text_bytes) / 1e6 / std::max(seconds, 1e-9)));
  }

  void add(const RawRow& row, data::ShardRow& made) {
    if (!made.prepared.error.empty()) return add_bad({row.source, row.line, made.prepared.error});
    data::ShardTotals& totals = facts_.totals;
    totals.counts.add(made.prepared, row.line);
    if (!made.prepared.dropped_because.empty()) return;
    data::SftExample& example = made.prepared.example;
    ++totals.examples;
    ++totals.rows;
    add_sequence(example);
    int64_t tokens = std::ssize(example.input_ids);
    if (made.rejected) {
      add_sequence(*made.rejected);
      tokens += std::ssize(made.rejected->input_ids);
    }
    ++totals.row_lengths[tokens];
    for (const std::string& column : made.columns) ++totals.columns[column];
    if (rows_.duplicates) add_to_seen(example.input_ids, made.rejected);
    if (!options_.packing) return;
    group_.push_back(std::move(example));
    if (std::ssize(group_) == data::group_rows) end_group();
  }

  void add_to_seen(std::vector<int32_t> ids, const std::optional<data::SftExample>& rejected) {
    if (rejected) {
      ids.push_back(-1);
      ids.insert(ids.end(), rejected->input_ids.begin(), rejected->input_ids.end());
    }
    const XXH128_hash_t hash = XXH3_128bits(ids.data(), ids.size() * sizeof ids[0]);
    facts_.duplicate_rows += !seen_.emplace(hash.high64, hash.low64).second;
  }

  void add_sequence(const data::SftExample& example) {
    data::ShardTotals& totals = facts_.totals;
    const int64_t tokens = std::ssize(example.labels);
    ++totals.sequences;
    totals.tokens += tokens;
    totals.labelled_tokens += data::trained_tokens(example);
    totals.longest_sequence = std::max(totals.longest_sequence, tokens);
  }

  void add_bad(data::BadRow row) {
    ++facts_.totals.bad_rows;
    if (facts_.totals.first_bad_rows.size() < data::max_listed_bad_rows)
      facts_.totals.first_bad_rows.push_back(std::move(row));
  }

  // Rows are packed in the groups of tokenize.
  void end_group() {
    if (!options_.packing) return;
    const data::PackedRows packed =
        data::pack_examples(group_, options_.max_length, data::packing_strategy(options_.packing_strategy));
    facts_.packed_rows += std::ssize(packed.examples);
    for (const data::PackedExample& example : packed.examples) {
      facts_.packed_tokens += std::ssize(example.input_ids);
      facts_.packed_samples += std::ssize(example.sample_lengths);
    }
    facts_.totals.dropped_sequences += packed.dropped;
    group_.clear();
  }

  const RawRows& rows_;
  const SftRowOptions& options_;
  data::SftOptions sft_;
  data::PreferenceOptions preferences_;
  std::vector<std::string> files_;
  data::ShardRowReader reader_;
  RawRowFacts facts_;
  int64_t total_bytes_, finished_bytes_ = 0;  // of files as they lie
  cli::Progress progress_;
  Clock::time_point start_ = Clock::now();
  std::vector<RawRow> pending_;
  size_t pending_bytes_ = 0;
  int64_t rows_seen_ = 0;
  std::set<std::pair<uint64_t, uint64_t>> seen_;
  std::vector<data::SftExample> group_;  // rows that are packed together
};

}  // namespace

RawRowFacts read_raw_rows(const RawRows& rows, const SftRowOptions& options) {
  if (options.model.empty())
    throw ConfigError("model", rows.input + " holds raw rows: name the model whose tokenizer and template read them");
  if (options.packing && rows.kind != "sft")
    throw ConfigError("packing", "is for rows of kind sft; " + rows.kind + " rows are not packed");
  const text::ModelText text = text::load_model_text(nn::open_model_files(options.model));
  return Reading(rows, options, text).read();
}

}  // namespace lathe::programs
