#include "data/shards/shard_tokenization.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <future>
#include <utility>

#include "core/atomic_write.h"
#include "core/digits.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/thread_pool.h"
#include "data/readers/text_lines.h"
#include "data/shards/source_license.h"
#include "data/shards/text_identity.h"

namespace lathe::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* progress_name = "progress.json";
constexpr size_t step_rows = 1024, step_bytes = 8 << 20;  // what is held as text at a time, but for one long row
constexpr int64_t text_bytes_per_token = 8;

ordered_json identity_of(const ShardTokenizationSettings& settings, const ShardManifest& manifest) {
  ordered_json identity = {{"tokenizer", manifest.tokenizer},
                           {"chat_template", manifest.chat_template},
                           {"vocab_size", manifest.vocab_size},
                           {"settings", manifest.settings},
                           {"inputs", settings.inputs},
                           {"format", static_cast<int>(settings.format)},
                           {"skip_bad_rows", settings.bad_rows == BadRows::skip},
                           {"too_long", settings.rows.too_long == TooLong::error ? "error" : "truncate"},
                           {"shard_tokens", settings.shard_tokens},
                           {"max_row_bytes", settings.max_row_bytes},
                           {"part", settings.part.part},
                           {"parts", settings.part.parts}};
  if (settings.compression != Compression::none) identity["compression"] = "zstd";
  return identity;
}

nlohmann::ordered_json settings_json(const ShardTokenizationSettings& settings) {
  switch (settings.kind) {
    case RowKind::preference: return preference_settings_json(settings.preferences);
    case RowKind::prompt: return prompt_settings_json();
    case RowKind::sft: break;
  }
  return sft_settings_json(settings.rows, settings.packing_strategy_name);
}

void check(const ShardTokenizationSettings& settings) {
  if (settings.inputs.empty()) throw ConfigError("input", "there is none");
  if (std::ranges::count(settings.inputs, standard_input) > 1)
    throw ConfigError("input", "standard input (-) can be read once");
  if (settings.shard_tokens < 1 || settings.shard_tokens > int64_t{1} << 30)
    throw ConfigError("shard_tokens", "must be from 1 to 1073741824, found " + std::to_string(settings.shard_tokens));
  const RowPart& part = settings.part;
  if (part.parts < 1 || part.part < 1 || part.part > part.parts)
    throw ConfigError("shard", "must be i/n with i from 1 to n, found " + std::to_string(part.part) + "/" +
                                   std::to_string(part.parts));
}

// The folder, locked for as long as the descriptor lives.
int locked_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  const int descriptor = error ? -1 : ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0)
    throw ResourceError("cannot make the folder " + folder.string() + ": " +
                        (error ? error.message() : std::strerror(errno)));
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
  ::close(descriptor);
  throw ConfigError("output", folder.string() + " is being written by another process; give each its own folder");
}

bool holds_files(const fs::path& folder) {
  return std::ranges::any_of(fs::directory_iterator(folder),
                             [](const auto& entry) { return !entry.path().filename().string().starts_with('.'); });
}

}  // namespace

std::string shard_name(size_t index) {
  char name[32];
  std::snprintf(name, sizeof name, "shard-%05zu.bin", index);
  return name;
}

ShardTokenization::ShardTokenization(ShardTokenizationSettings settings, const Tokenizer& tokenizer,
                                     const ChatTemplate* chat_template)
    : settings_(std::move(settings)),
      tokenizer_(tokenizer),
      reader_(settings_.kind, tokenizer, chat_template, settings_.rows, settings_.preferences,
              settings_.rows.vocab_size.value_or(tokenizer.vocab_size())) {
  check(settings_);
  for (const std::string& input : settings_.inputs)
    for (std::string& file : files_of_input(input, "input")) files_.push_back(std::move(file));
  manifest_.model = settings_.model;
  manifest_.tokenizer = tokenizer_identity(tokenizer_);
  manifest_.chat_template = chat_template_identity(tokenizer_);
  manifest_.vocab_size = settings_.rows.vocab_size.value_or(tokenizer_.vocab_size());
  manifest_.settings = settings_json(settings_);
  identity_ = identity_of(settings_, manifest_);
  const std::string identity_text = json_file_text(identity_, 1);
  manifest_.made_from = hash_digits(XXH64(identity_text.data(), identity_text.size(), 0));
  folder_lock_ = locked_folder(settings_.output);
  try {
    read_progress();
  } catch (...) {
    ::close(folder_lock_);
    throw;
  }
}

ShardTokenization::~ShardTokenization() {
  if (folder_lock_ >= 0) ::close(folder_lock_);
}

int64_t ShardTokenization::source_bytes() const {
  return finished_source_bytes_ + (lines_ ? lines_->source().bytes : 0);
}

void ShardTokenization::read_progress() {
  const fs::path& folder = settings_.output;
  const std::string other =
      folder.string() + " holds shards of other rows or settings; choose another folder, or remove it";
  if (is_shard_folder(folder)) {
    const ShardManifest made = read_shard_manifest(folder);
    bool same = made.made_from == manifest_.made_from;
    for (const ShardSource& source : made.sources) {
      std::error_code error;
      const auto bytes = fs::file_size(source.path, error);
      same = same && (error || static_cast<int64_t>(bytes) == source.bytes);
    }
    if (!same) throw ConfigError("output", other);
    totals_ = made.totals;
    done_ = true;
    std::error_code ignored;
    fs::remove(folder / progress_name, ignored);
    return;
  }
  const fs::path path = folder / progress_name;
  if (!fs::exists(path)) {
    if (holds_files(folder))
      throw ConfigError("output", folder.string() + " holds other files; choose an empty folder");
    write_file_atomically(path, json_file_text({{"of", identity_}}, 1));
    return;
  }
  const ordered_json progress = read_json_file(path);
  if (!progress.is_object() || !progress.contains("of") || progress.at("of") != identity_)
    throw ConfigError("output", other);
  if (!progress.contains("files")) return;
  try {
    manifest_.files = entries_from_json(progress.at("files"), path.string());
    totals_ = totals_from_json(progress.at("totals"), path.string());
    resume_rows_ = json_integer(progress.at("rows_read"), "rows_read", 0, INT64_MAX, path.string());
    resume_hash_ = std::stoull(progress.at("read_xxh64").get<std::string>(), nullptr, 16);
  } catch (const std::exception& error) {
    throw FormatError(path.string(), -1,
                      std::string("was changed (") + error.what() + "); remove " + folder.string() + " to begin again");
  }
}

bool ShardTokenization::open_next_input() {
  if (lines_) {
    const SourceBytes source = lines_->source();
    finished_source_bytes_ += source.bytes;
    manifest_.sources.push_back(
        {lines_->name(), source.bytes, input_rows_, hash_digits(source.xxh64), license_beside(lines_->name())});
    lines_.reset();
  }
  if (input_ == files_.size()) return false;
  lines_ = open_row_source(files_[input_++], settings_.max_row_bytes);
  input_rows_ = 0;
  return true;
}

// The next row of this part that no shard has yet.
bool ShardTokenization::next_row(Row& row) {
  for (;;) {
    const std::optional<TextLine> line = lines_ ? lines_->next() : std::nullopt;
    if (!line) {
      if (open_next_input()) continue;
      if (rows_read_ < resume_rows_)
        throw FormatError(settings_.inputs.back(), -1,
                          "ends before the row where " + settings_.output.string() +
                              " goes on: the input was changed since; remove the folder to begin again");
      return false;
    }
    row.is_text = !lines_->is_arrow() && (settings_.format == RowFormat::text ||
                                          (settings_.format == RowFormat::by_name && is_text_name(lines_->name())));
    if (input_rows_++ == 0 && !row.is_text && !lines_->is_arrow())
      expect_no_json_array(line->text, line->number, lines_->name());
    read_hash_ = XXH64(line->text.data(), line->text.size(), read_hash_);
    const int64_t index = rows_read_++;
    if (rows_read_ == resume_rows_ && read_hash_ != resume_hash_)
      throw FormatError(lines_->name(), -1,
                        "the rows up to line " + std::to_string(line->number) + " are not those that " +
                            settings_.output.string() +
                            " was made of: the input was changed since; remove the folder to begin again");
    if (rows_read_ <= resume_rows_ || !settings_.part.has(index)) continue;
    row.text = line->text;
    row.line = line->number;
    row.source = lines_->name();
    row.read_hash = read_hash_;
    row.rows_read = rows_read_;
    return true;
  }
}

ShardTokenization::Batch ShardTokenization::read_batch() {
  Batch batch;
  try {
    for (Row row; batch.rows.size() < step_rows && batch.bytes < step_bytes && next_row(row);) {
      batch.bytes += row.text.size();
      batch.rows.push_back(std::move(row));
    }
  } catch (...) {
    batch.failure = std::current_exception();  // told after what the rows before it have to tell
  }
  return batch;
}

void ShardTokenization::add_batch(Batch batch) {
  for (size_t i = 0; i < batch.rows.size(); ++i) add(batch.rows[i], batch.made[i]);
  text_bytes_ += static_cast<int64_t>(batch.bytes);
  if (batch.failure) std::rethrow_exception(batch.failure);
}

// While a batch is tokenised on all threads, another adds the one before to its shard and reads the next: what goes in
// order keeps nobody waiting.
bool ShardTokenization::step() {
  if (done_) return false;
  if (!begun_) next_ = read_batch();
  begun_ = true;
  Batch batch = std::exchange(next_, {});
  if (batch.rows.empty()) {
    add_batch(std::exchange(tokenised_, {}));
    if (batch.failure) std::rethrow_exception(batch.failure);
    finish();
    return false;
  }
  const bool last = batch.failure != nullptr;
  const auto in_order = [&] {
    add_batch(std::exchange(tokenised_, {}));
    if (!last) next_ = read_batch();
  };
  std::future<void> beside;
  if (thread_count() > 1) beside = std::async(std::launch::async, in_order);
  batch.made.resize(batch.rows.size());
  parallel_for(std::ssize(batch.rows), 4, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const Row& row = batch.rows[i];
      batch.made[i] = reader_.read(row.text, row.is_text, row.source, row.line);
    }
  });
  beside.valid() ? beside.get() : in_order();
  tokenised_ = std::move(batch);
  return true;
}

void ShardTokenization::add(Row& row, ShardRow& made) {
  const PreparedRow& prepared = made.prepared;
  if (!prepared.error.empty()) {
    if (settings_.bad_rows == BadRows::error)
      throw FormatError(row.source, -1,
                        "line " + std::to_string(row.line) + ": " + prepared.error +
                            " (--skip_bad_rows counts such rows and goes on)");
    ++totals_.bad_rows;
    if (totals_.first_bad_rows.size() < max_listed_bad_rows)
      totals_.first_bad_rows.push_back({row.source, row.line, prepared.error});
    return;
  }
  totals_.counts.add(prepared, row.line);
  if (!prepared.dropped_because.empty()) return;
  ++totals_.examples;
  add_sequences(made);
  const bool between_groups = pending_.empty();
  if (between_groups && (shard_.tokens() >= settings_.shard_tokens ||
                         shard_.text_bytes() / text_bytes_per_token >= settings_.shard_tokens))
    write_shard(row.rows_read, row.read_hash);
}

void ShardTokenization::add_sequences(ShardRow& row) {
  SftExample& example = row.prepared.example;
  if (settings_.kind == RowKind::sft && settings_.rows.packing) {
    const auto longest = static_cast<size_t>(*settings_.rows.max_length);
    // What packing cuts off anyway need not wait for it.
    if (settings_.packing_strategy == PackingStrategy::bfd && example.input_ids.size() > longest) {
      example.input_ids.resize(longest);
      example.labels.resize(longest);
    }
    pending_.push_back(std::move(example));
    if (std::ssize(pending_) == group_rows) pack_pending();
    return;
  }
  shard_.add_row(example.input_ids, example.labels, row.text);
  add_to_totals(example.labels, true);
  int64_t tokens = std::ssize(example.labels);
  if (row.rejected) {
    shard_.add_to_row(row.rejected->input_ids, row.rejected->labels);
    add_to_totals(row.rejected->labels, false);
    tokens += std::ssize(row.rejected->labels);
  }
  end_row(tokens);
  for (const std::string& column : row.columns) ++totals_.columns[column];
}

void ShardTokenization::add_to_totals(std::span<const int32_t> labels, bool new_row) {
  totals_.rows += new_row;
  ++totals_.sequences;
  totals_.tokens += std::ssize(labels);
  totals_.labelled_tokens += std::ssize(labels) - 1 - std::count(labels.begin() + 1, labels.end(), ignored_label);
  totals_.longest_sequence = std::max<int64_t>(totals_.longest_sequence, std::ssize(labels));
}

void ShardTokenization::end_row(int64_t tokens) { ++totals_.row_lengths[tokens]; }

void ShardTokenization::pack_pending() {
  const PackedRows packed = pack_examples(pending_, *settings_.rows.max_length, settings_.packing_strategy);
  totals_.dropped_sequences += packed.dropped;
  for (const PackedExample& example : packed.examples) {
    size_t begin = 0;
    for (const int32_t length : example.sample_lengths) {
      const auto ids = std::span(example.input_ids).subspan(begin, static_cast<size_t>(length));
      const auto labels = std::span(example.labels).subspan(begin, static_cast<size_t>(length));
      begin == 0 ? shard_.add_row(ids, labels) : shard_.add_to_row(ids, labels);
      add_to_totals(labels, begin == 0);
      begin += static_cast<size_t>(length);
    }
    end_row(std::ssize(example.input_ids));
  }
  pending_.clear();
}

void ShardTokenization::write_shard(int64_t rows_read, uint64_t read_hash) {
  ShardEntry entry;
  entry.name = shard_name(manifest_.files.size());
  entry.rows = shard_.rows();
  entry.sequences = shard_.sequences();
  entry.tokens = shard_.tokens();
  entry.header_xxh64 = shard_.write(settings_.output / entry.name, manifest_.vocab_size, settings_.compression);
  entry.bytes = static_cast<int64_t>(fs::file_size(settings_.output / entry.name));
  manifest_.files.push_back(std::move(entry));
  shard_ = {};
  write_file_atomically(settings_.output / progress_name, json_file_text({{"of", identity_},
                                                                          {"rows_read", rows_read},
                                                                          {"read_xxh64", hash_digits(read_hash)},
                                                                          {"files", to_json(manifest_.files)},
                                                                          {"totals", to_json(totals_)}},
                                                                         1));
}

void ShardTokenization::finish() {
  if (!pending_.empty()) pack_pending();
  if (shard_.rows() > 0) write_shard(rows_read_, read_hash_);
  const bool learns = settings_.kind == RowKind::prompt ? totals_.rows > 0 : totals_.labelled_tokens > 0;
  if (!learns && settings_.part.parts == 1)
    throw ConfigError("input",
                      (settings_.inputs.size() == 1 ? settings_.inputs[0] + " holds" : "they hold") +
                          " nothing to learn from" +
                          (totals_.counts.dropped > 0 ? ": line " + std::to_string(totals_.counts.first_dropped_line) +
                                                            ": " + totals_.counts.first_dropped_because
                                                      : std::string()));
  manifest_.totals = totals_;
  SftOptions said = settings_.rows;
  if (settings_.kind == RowKind::preference) said.max_length = settings_.preferences.max_length;
  manifest_.warnings = totals_.counts.warnings(said);
  if (totals_.dropped_sequences > 0)
    manifest_.warnings.push_back(std::to_string(totals_.dropped_sequences) +
                                 " packed sequences dropped: they have nothing to train on");
  if (totals_.bad_rows > 0)
    manifest_.warnings.push_back(
        std::to_string(totals_.bad_rows) + " bad rows left out, the first in " + totals_.first_bad_rows[0].source +
        ", line " + std::to_string(totals_.first_bad_rows[0].line) + ": " + totals_.first_bad_rows[0].reason);
  write_shard_manifest(settings_.output, manifest_);
  std::error_code ignored;
  fs::remove(settings_.output / progress_name, ignored);
  done_ = true;
}

}  // namespace lathe::data
