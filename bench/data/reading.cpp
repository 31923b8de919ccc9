#include "bench/data/reading.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>
#include <span>
#include <vector>

#include "core/error.h"
#include "core/json_value.h"
#include "core/mapped_file.h"
#include "data/shards/shards.h"
#include "data/shuffle/permutation.h"
#include "programs/cli/program.h"
#include "train/training_set.h"

namespace lathe::bench {
namespace {

struct DataOptions {
  cli::CommonOptions common;
  std::string folder;
  int repeat = 5;
  int64_t rows = 8;  // of a batch
};

double thread_seconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Of this thread alone, so that others on the machine count less.
double seconds_of(const auto& work) {
  const double start = thread_seconds();
  work();
  return thread_seconds() - start;
}

// Whole files, by read() into a buffer that stays in the cache.
void read_files(const std::string& folder, const data::ShardManifest& manifest) {
  std::vector<char> buffer(256 << 10);
  for (const data::ShardEntry& entry : manifest.files) {
    const std::string path = folder + "/" + entry.name;
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw ResourceError("cannot open " + path + ": " + std::strerror(errno));
    while (::read(file, buffer.data(), buffer.size()) > 0) {
    }
    ::close(file);
  }
}

// Where the ids and the labels of each row lie in the mapped files. Compressed ones do not lie anywhere.
class StoredRows {
 public:
  StoredRows(const data::Shards& shards, const std::string& folder) : shards_(shards) {
    int64_t row = 0;
    for (const data::ShardEntry& entry : shards.manifest().files) {
      files_.push_back(MappedFile::open(folder + "/" + entry.name));
      const std::byte* const file = files_.back()->bytes().data();
      data::ShardHeader header = {};
      std::memcpy(&header, file, sizeof header);
      if (header.packed_at > 0) {
        rows_.clear();
        return;
      }
      uint64_t begin = 0;  // tokens of the rows before
      for (const int64_t end = row + entry.rows; row < end; ++row) {
        const auto [first, last] = shards.sequences_of_row(row);
        uint64_t tokens = 0;
        for (int64_t s = first; s < last; ++s) tokens += static_cast<uint64_t>(shards.sequence_tokens(s));
        const bool mask = header.labels == data::ShardLabels::mask;
        rows_.push_back({{file + header.ids_at + begin * header.id_bytes, tokens * header.id_bytes},
                         {file + header.labels_at + (mask ? begin / 8 : begin * 4), mask ? tokens / 8 : tokens * 4},
                         first,
                         last});
        begin += tokens;
      }
    }
  }

  bool known() const { return !rows_.empty(); }

  // One after another, as they lie, fetched ahead as Batch does: the same bytes in the same order, and no more.
  void copy(std::span<const int64_t> rows, std::vector<std::byte>& into) const {
    size_t at = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i + 1 < rows.size()) {
        const Row& next = rows_[static_cast<size_t>(rows[i + 1])];
        shards_.prefetch_sequences(next.first, next.last);
      }
      const Row& row = rows_[static_cast<size_t>(rows[i])];
      for (const std::span<const std::byte> part : {row.ids, row.labels}) {
        if (at + part.size() > into.size()) into.resize(2 * (at + part.size()));
        std::memcpy(into.data() + at, part.data(), part.size());
        at += part.size();
      }
    }
  }

 private:
  struct Row {
    std::span<const std::byte> ids, labels;
    int64_t first, last;  // its sequences
  };
  const data::Shards& shards_;
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::vector<Row> rows_;
};

// Calls `batch` with the rows of each batch of an epoch, in the order of its steps.
void for_each_batch(int64_t rows, int64_t rows_of_batch, uint64_t epoch, const auto& batch) {
  const data::Permutation permutation(static_cast<uint64_t>(rows), 42, epoch);
  std::vector<int64_t> of_batch;
  for (int64_t position = 0; position < rows; ++position) {
    of_batch.push_back(static_cast<int64_t>(permutation(static_cast<uint64_t>(position))));
    if (std::ssize(of_batch) < rows_of_batch && position + 1 < rows) continue;
    batch(std::span<const int64_t>(of_batch));
    of_batch.clear();
  }
}

// Ids and labels of a batch end to end, in memory that every batch uses.
class Batch {
 public:
  void read(const data::Shards& shards, std::span<const int64_t> rows) {
    tokens_ = 0;
    auto next = shards.sequences_of_row(rows[0]);
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto [first, last] = next;
      if (i + 1 < rows.size()) {
        next = shards.sequences_of_row(rows[i + 1]);
        shards.prefetch_sequences(next.first, next.second);
      }
      size_t tokens = 0;
      for (int64_t s = first; s < last; ++s) tokens += static_cast<size_t>(shards.sequence_tokens(s));
      if (tokens_ + tokens > ids_.size()) {
        ids_.resize(2 * (tokens_ + tokens));
        labels_.resize(ids_.size());
      }
      shards.read_sequences(first, last, std::span(ids_).subspan(tokens_, tokens),
                            std::span(labels_).subspan(tokens_, tokens));
      tokens_ += tokens;
    }
  }
  size_t tokens() const { return tokens_; }

 private:
  std::vector<int32_t> ids_, labels_;
  size_t tokens_ = 0;
};

int64_t read_rows(const data::Shards& shards, int64_t rows_of_batch, uint64_t epoch) {
  Batch batch;
  int64_t tokens = 0;
  for_each_batch(shards.rows(), rows_of_batch, epoch, [&](std::span<const int64_t> rows) {
    batch.read(shards, rows);
    tokens += static_cast<int64_t>(batch.tokens());
  });
  return tokens;
}

// As a step gets them: with their layout, and labels shifted to where they are predicted.
void make_batches(const train::TrainingSet& set, int64_t rows_of_batch, uint64_t epoch) {
  std::vector<int64_t> sequences;
  for_each_batch(set.rows(), rows_of_batch, epoch, [&](std::span<const int64_t> rows) {
    sequences.clear();
    for (const int64_t row : rows) {
      const auto [first, last] = set.sequences_of_row(row);
      for (int64_t s = first; s < last; ++s) sequences.push_back(s);
    }
    train::make_micro_batch(set, sequences, 0);
  });
}

void measure(const DataOptions& options) {
  const auto shards = std::make_shared<const data::Shards>(options.folder);
  const train::TrainingSet set = train::TrainingSet::of_shards(shards);
  const data::ShardManifest& manifest = shards->manifest();
  int64_t bytes = 0, tokens = 0;
  for (const data::ShardEntry& entry : manifest.files) bytes += entry.bytes;
  read_files(options.folder, manifest);  // into the page cache
  const double first = seconds_of([&] { tokens = read_rows(*shards, options.rows, 0); });
  const StoredRows stored(*shards, options.folder);
  double cache = 1e9, copies = 1e9, rows = 1e9, batches = 1e9;
  for (int i = 0; i < options.repeat; ++i) {  // in turn
    const auto epoch = static_cast<uint64_t>(i) + 1;
    cache = std::min(cache, seconds_of([&] { read_files(options.folder, manifest); }));
    if (stored.known())
      copies = std::min(copies, seconds_of([&] {
                          std::vector<std::byte> into;
                          for_each_batch(shards->rows(), options.rows, epoch,
                                         [&](std::span<const int64_t> of_batch) { stored.copy(of_batch, into); });
                        }));
    rows = std::min(rows, seconds_of([&] { read_rows(*shards, options.rows, epoch); }));
    batches = std::min(batches, seconds_of([&] { make_batches(set, options.rows, epoch); }));
  }
  const auto rate = [&](double seconds) { return static_cast<double>(bytes) / 1e9 / seconds; };
  if (options.common.json) {
    nlohmann::ordered_json result = {{"shards", options.folder},
                                     {"bytes", bytes},
                                     {"tokens", tokens},
                                     {"rows_of_batch", options.rows},
                                     {"page_cache_gb_per_second", rate(cache)},
                                     {"first_epoch_gb_per_second", rate(first)},
                                     {"rows_gb_per_second", rate(rows)},
                                     {"batches_gb_per_second", rate(batches)},
                                     {"share_of_page_cache", cache / rows},
                                     {"tokens_per_second", static_cast<double>(tokens) / rows}};
    if (stored.known()) {
      result["rows_copied_gb_per_second"] = rate(copies);
      result["share_of_rows_copied"] = copies / rows;
    }
    fmt::print("{}\n", result.dump(1));
    return;
  }
  const auto print = [&](const char* what, double seconds) {
    fmt::print("  {:<28} {:6.2f} GB/s, {:3.0f} % of read()", what, rate(seconds), 100 * cache / seconds);
    if (stored.known()) fmt::print(", {:3.0f} % of copies", 100 * copies / seconds);
    fmt::print(", {:.2f} G tokens/s\n", static_cast<double>(tokens) / 1e9 / seconds);
  };
  fmt::print("{}: {:.0f} MB, {} tokens, batches of {} rows, one thread\n", options.folder,
             static_cast<double>(bytes) / 1e6, tokens, options.rows);
  fmt::print("  {:<28} {:6.2f} GB/s\n", "read() from the page cache", rate(cache));
  if (stored.known()) fmt::print("  {:<28} {:6.2f} GB/s\n", "rows copied as they lie", rate(copies));
  print("rows, first epoch (hashed)", first);
  print("rows, later epochs", rows);
  print("batches of a step", batches);
}

}  // namespace

void add_data(CLI::App& app) {
  auto* command = app.add_subcommand("data", "How fast training reads shards, beside the page cache");
  auto options = std::make_shared<DataOptions>();
  command->add_option("SHARDS", options->folder, "a folder that lathe-data tokenize has filled")->required();
  command->add_option("--repeat", options->repeat, "the best of so many")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  command->add_option("--rows", options->rows, "rows of a batch")->capture_default_str()->check(CLI::Range(1, 100000));
  cli::add_common_options(*command, options->common);
  command->callback([options] { measure(*options); });
}

}  // namespace lathe::bench
