// lathe-data verify, stats and merge: folders of shards; the first two also raw rows.
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <set>

#include "core/error.h"
#include "core/json_value.h"
#include "core/printable.h"
#include "core/thread_pool.h"
#include "data/shards/shards.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/data/commands.h"
#include "programs/data/part.h"
#include "programs/data/raw_rows.h"

namespace lathe::programs {
namespace {

using nlohmann::ordered_json;

struct ShardsOptions {
  cli::CommonOptions common;
  std::vector<std::string> folders;
  SftRowOptions rows;  // of raw ones; max_length of both
  std::string output, shard = "1/1", kind = "sft";
  bool duplicates = false;
};

void print_bad_rows(const data::ShardTotals& totals) {
  for (const data::BadRow& row : totals.first_bad_rows)
    cli::print_note(fmt::format("bad row: {}, line {}: {}", row.source, row.line, printable(row.reason)));
  const int64_t listed = std::ssize(totals.first_bad_rows);
  if (totals.bad_rows > listed) cli::print_note(fmt::format("… and {} more", totals.bad_rows - listed));
}

void print_json(const ordered_json& result) {
  fmt::print("{}\n", result.dump(2, ' ', false, ordered_json::error_handler_t::replace));
}

RawRowFacts facts_of_rows(const ShardsOptions& options, const std::string& input) {
  return read_raw_rows({input, options.kind, parse_part(options.shard), options.duplicates}, options.rows);
}

void expect_whole(const RawRowFacts& facts) {
  if (facts.unreadable_files.empty()) return;
  for (const std::string& reason : facts.unreadable_files) cli::print_note("bad file: " + printable(reason));
  throw Error("not all rows could be read: mend the file; what is said of them is of the rows before");
}

// Error where a row is bad, when all have been read.
void verify_rows(const ShardsOptions& options, const std::string& input) {
  const RawRowFacts facts = facts_of_rows(options, input);
  const data::ShardTotals& totals = facts.totals;
  if (options.common.json) {
    print_json({{"rows", input},
                {"rows_read", facts.rows_read},
                {"dropped", totals.counts.dropped},
                {"truncated", totals.counts.truncated},
                {"bad_rows", totals.bad_rows},
                {"first_bad_rows", to_json(totals)["first_bad_rows"]},
                {"unreadable_files", facts.unreadable_files},
                {"warnings", facts.warnings}});
  } else {
    for (const std::string& warning : facts.warnings) cli::print_warning(warning);
    print_bad_rows(totals);
    fmt::print("{}: {} rows read, {} bad, {} with nothing to learn\n", input, facts.rows_read, totals.bad_rows,
               totals.counts.dropped);
  }
  expect_whole(facts);
  if (totals.bad_rows > 0)
    throw Error(fmt::format(
        "{}: {}, or tokenize with --skip_bad_rows", input,
        totals.bad_rows == 1 ? "1 row is bad; mend it" : fmt::format("{} rows are bad; mend them", totals.bad_rows)));
}

void verify(const ShardsOptions& options) {
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const data::RowPart part = parse_part(options.shard);
  for (const std::string& folder : options.folders) {
    if (!data::is_shard_folder(folder)) {
      verify_rows(options, folder);
      continue;
    }
    const int64_t verified = data::verify_shards(folder, part.part, part.parts);
    const data::ShardManifest manifest = data::read_shard_manifest(folder);
    if (options.common.json) {
      print_json({{"folder", folder},
                  {"verified_shards", verified},
                  {"shards", manifest.files.size()},
                  {"rows", manifest.totals.rows},
                  {"tokens", manifest.totals.tokens}});
      continue;
    }
    fmt::print("{}: {}{} shards are whole, {} rows, {} tokens\n", folder, verified,
               part.parts == 1 ? "" : fmt::format(" of {}", manifest.files.size()), manifest.totals.rows,
               manifest.totals.tokens);
  }
}

void print_lengths(const std::map<int64_t, int64_t>& row_lengths) {
  if (row_lengths.empty()) return;
  constexpr int64_t bars = 10, bar_width = 40;
  const int64_t shortest = row_lengths.begin()->first, longest = row_lengths.rbegin()->first;
  const int64_t step = std::max<int64_t>(1, (longest - shortest + bars) / bars);
  std::vector<int64_t> counts(static_cast<size_t>((longest - shortest) / step + 1));
  for (const auto& [tokens, rows] : row_lengths) counts[static_cast<size_t>((tokens - shortest) / step)] += rows;
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  fmt::print("\ntokens in a row\n");
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t first = shortest + static_cast<int64_t>(i) * step;
    std::string bar;
    for (int64_t j = 0; j < (counts[i] * bar_width + most - 1) / most; ++j) bar += "█";
    fmt::print("  {:>6}–{:<6} {:>9}  {}\n", first, first + step - 1, counts[i], bar);
  }
}

// Rows whose tokens have all come before, in this order: 128 bits of hash for each row are held meanwhile. A part has
// the rows with hashes of its own, so that the parts' counts add up.
int64_t duplicate_rows(const std::string& folder, data::RowPart part) {
  const data::Shards shards(folder);
  std::set<std::pair<uint64_t, uint64_t>> seen;
  int64_t duplicates = 0;
  std::vector<int32_t> ids, labels;
  for (int64_t row = 0; row < shards.rows(); ++row) {
    ids.clear();
    labels.clear();
    const auto [first, last] = shards.sequences_of_row(row);
    for (int64_t s = first; s < last; ++s) {
      shards.append_sequence(s, ids, labels);
      ids.push_back(-1);
    }
    const XXH128_hash_t hash = XXH3_128bits(ids.data(), ids.size() * sizeof ids[0]);
    if (hash.low64 % static_cast<uint64_t>(part.parts) != static_cast<uint64_t>(part.part - 1)) continue;
    duplicates += !seen.emplace(hash.high64, hash.low64).second;
  }
  return duplicates;
}

struct Overlong {
  int64_t rows = 0, tokens = 0;
};

Overlong above(const std::map<int64_t, int64_t>& row_lengths, int64_t max_length) {
  Overlong above;
  for (auto length = row_lengths.upper_bound(max_length); length != row_lengths.end(); ++length) {
    above.rows += length->second;
    above.tokens += (length->first - max_length) * length->second;
  }
  return above;
}

// What is said of shards and raw rows alike.
void print_rows(const ShardsOptions& options, const data::ShardTotals& totals, const std::vector<std::string>& warnings,
                int64_t duplicates) {
  if (options.duplicates)
    fmt::print("{} again, token for token\n",
               duplicates == 1 ? "1 row comes" : fmt::format("{} rows come", duplicates));
  print_lengths(totals.row_lengths);
  print_bad_rows(totals);
  for (const std::string& warning : warnings) cli::print_warning(warning);
}

double percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

void print_packing(int64_t rows, int64_t tokens, int64_t samples, int64_t max_length) {
  fmt::print("packed: {} rows, {:.1f} % of {} tokens a row are filled, {:.1f} samples each\n", rows,
             percent(tokens, rows * max_length), max_length,
             static_cast<double>(samples) / static_cast<double>(std::max<int64_t>(1, rows)));
}

void stats_of_rows(const ShardsOptions& options, const std::string& input) {
  const RawRowFacts facts = facts_of_rows(options, input);
  const data::ShardTotals& totals = facts.totals;
  if (options.common.json) {
    ordered_json result = {{"rows", input},
                           {"rows_read", facts.rows_read},
                           {"text_bytes", facts.text_bytes},
                           {"totals", to_json(totals)},
                           {"unreadable_files", facts.unreadable_files},
                           {"warnings", facts.warnings}};
    if (options.duplicates) result["duplicate_rows"] = facts.duplicate_rows;
    if (options.rows.packing) {
      result["packed_rows"] = facts.packed_rows;
      result["packed_tokens"] = facts.packed_tokens;
    }
    print_json(result);
    return expect_whole(facts);
  }
  fmt::print("{}: {} rows, {} tokens, {} of them learnt ({:.1f} %), in {:.1f} MB of text\n", input, totals.rows,
             totals.tokens, totals.labelled_tokens, percent(totals.labelled_tokens, totals.tokens),
             static_cast<double>(facts.text_bytes) / 1e6);
  if (options.rows.packing)
    print_packing(facts.packed_rows, facts.packed_tokens, facts.packed_samples, options.rows.max_length);
  print_rows(options, totals, facts.warnings, facts.duplicate_rows);
  expect_whole(facts);
}

void stats_of_shards(const ShardsOptions& options, const std::string& folder, data::RowPart part) {
  const int64_t most = options.rows.max_length;
  const data::ShardManifest manifest = data::read_shard_manifest(folder);
  const data::ShardTotals& totals = manifest.totals;
  int64_t bytes = 0;
  for (const data::ShardEntry& file : manifest.files) bytes += file.bytes;
  const int64_t duplicates = options.duplicates ? duplicate_rows(folder, part) : 0;
  const Overlong overlong = most > 0 ? above(totals.row_lengths, most) : Overlong();
  std::set<std::string> licenses;
  for (const data::ShardSource& source : manifest.sources)
    if (!source.license.empty()) licenses.insert(source.license);
  if (options.common.json) {
    ordered_json result = {{"folder", folder},
                           {"model", manifest.model},
                           {"tokenizer", manifest.tokenizer},
                           {"settings", manifest.settings},
                           {"shards", manifest.files.size()},
                           {"bytes", bytes},
                           {"totals", to_json(totals)},
                           {"licenses", licenses},
                           {"warnings", manifest.warnings}};
    if (options.duplicates) result["duplicate_rows"] = duplicates;
    if (most > 0) {
      result["rows_above_max_length"] = overlong.rows;
      result["tokens_above_max_length"] = overlong.tokens;
    }
    return print_json(result);
  }
  fmt::print("{}: {} rows, {} tokens, {} of them learnt ({:.1f} %), in {} shards of {:.1f} MB\n", folder, totals.rows,
             totals.tokens, totals.labelled_tokens, percent(totals.labelled_tokens, totals.tokens),
             manifest.files.size(), static_cast<double>(bytes) / 1e6);
  fmt::print("made with the tokenizer of {}\n", manifest.model);
  if (!licenses.empty())
    fmt::print("licence, as the sources say: {}\n", printable(fmt::to_string(fmt::join(licenses, "; "))));
  const auto& max_length = manifest.settings.value("max_length", ordered_json());
  if (manifest.settings.value("packing", false) && max_length.is_number())
    print_packing(totals.rows, totals.tokens, totals.sequences, max_length.get<int64_t>());
  if (most > 0)
    fmt::print("{} longer than {} tokens and would lose {} tokens\n",
               overlong.rows == 1 ? "1 row is" : fmt::format("{} rows are", overlong.rows), most, overlong.tokens);
  print_rows(options, totals, manifest.warnings, duplicates);
}

void stats(const ShardsOptions& options) {
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const data::RowPart part = parse_part(options.shard);
  for (const std::string& folder : options.folders)
    data::is_shard_folder(folder) ? stats_of_shards(options, folder, part) : stats_of_rows(options, folder);
}

void merge(const ShardsOptions& options) {
  data::merge_shards({options.folders.begin(), options.folders.end()}, options.output);
  const data::ShardManifest manifest = data::read_shard_manifest(options.output);
  fmt::print("{}: {} rows, {} tokens, in {} shards\n", options.output, manifest.totals.rows, manifest.totals.tokens,
             manifest.files.size());
}

CLI::App* add_command(CLI::App& app, const char* name, const char* description, void (*body)(const ShardsOptions&),
                      const std::shared_ptr<ShardsOptions>& options,
                      const char* what = "folders that lathe-data tokenize has filled") {
  auto* command = app.add_subcommand(name, description);
  command->add_option("SHARDS", options->folders, what)->required();
  cli::add_common_options(*command, options->common);
  command->callback([options, body] { body(*options); });
  return command;
}

constexpr const char* shards_or_rows =
    "folders that lathe-data tokenize has filled; or raw rows, as tokenize takes them, with --model";

// They matter for raw rows alone.
void add_row_options(CLI::App& command, ShardsOptions& options) {
  add_kind_option(command, options.kind);
  add_sft_row_options(command, options.rows);
  command.get_option("--model")->required(false);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto options = std::make_shared<ShardsOptions>();
  auto* command = add_command(app, "verify", "Compare every byte of shards with its hash; read every raw row", verify,
                              options, shards_or_rows);
  add_row_options(*command, *options);
  add_shard_option(*command, options->shard, "every n-th shard from the i-th on; of raw rows groups of 1000 in turn");
}

void add_stats(CLI::App& app) {
  auto options = std::make_shared<ShardsOptions>();
  auto* command = add_command(app, "stats", "Rows, tokens, lengths and faults of shards and raw rows", stats, options,
                              shards_or_rows);
  options->rows.max_length = 0;
  add_row_options(*command, *options);
  command->get_option("--max_length")
      ->description("of shards: count what rows would lose above so many tokens; of raw rows: tokens that one keeps");
  command->add_flag("--duplicates", options->duplicates, "read all rows, and count those that have come before");
  add_shard_option(*command, options->shard,
                   "of shards with --duplicates: what the n parts count adds up, each in an n-th of memory; of raw "
                   "rows the groups of 1000 that are read");
}

void add_merge(CLI::App& app) {
  auto options = std::make_shared<ShardsOptions>();
  auto* command = add_command(app, "merge", "Join folders of shards, such as the parts of --shard i/n", merge, options);
  command->add_option("--output", options->output, "the folder to make")->required();
}

}  // namespace lathe::programs
