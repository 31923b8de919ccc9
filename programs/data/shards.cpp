// lathe-data verify, stats and merge: folders of shards.
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "data/shards/shards.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/data/commands.h"
#include "programs/data/part.h"

namespace lathe::programs {
namespace {

using nlohmann::ordered_json;

struct ShardsOptions {
  cli::CommonOptions common;
  std::vector<std::string> folders;
  std::string output, shard = "1/1";
  int64_t max_length = 0;
  bool duplicates = false;
};

void verify(const ShardsOptions& options) {
  const data::RowPart part = parse_part(options.shard);
  for (const std::string& folder : options.folders) {
    const int64_t verified = data::verify_shards(folder, part.part, part.parts);
    const data::ShardManifest manifest = data::read_shard_manifest(folder);
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

void stats(const ShardsOptions& options) {
  const data::RowPart part = parse_part(options.shard);
  for (const std::string& folder : options.folders) {
    const data::ShardManifest manifest = data::read_shard_manifest(folder);
    const data::ShardTotals& totals = manifest.totals;
    int64_t bytes = 0;
    for (const data::ShardEntry& file : manifest.files) bytes += file.bytes;
    const int64_t duplicates = options.duplicates ? duplicate_rows(folder, part) : 0;
    const Overlong overlong = options.max_length > 0 ? above(totals.row_lengths, options.max_length) : Overlong();
    if (options.common.json) {
      ordered_json result = {{"folder", folder},
                             {"model", manifest.model},
                             {"tokenizer", manifest.tokenizer},
                             {"settings", manifest.settings},
                             {"shards", manifest.files.size()},
                             {"bytes", bytes},
                             {"totals", to_json(totals)},
                             {"warnings", manifest.warnings}};
      if (options.duplicates) result["duplicate_rows"] = duplicates;
      if (options.max_length > 0) {
        result["rows_above_max_length"] = overlong.rows;
        result["tokens_above_max_length"] = overlong.tokens;
      }
      fmt::print("{}\n", result.dump(2, ' ', false, ordered_json::error_handler_t::replace));
      continue;
    }
    fmt::print(
        "{}: {} rows, {} tokens, {} of them learnt ({:.1f} %), in {} shards of {:.1f} MB\n", folder, totals.rows,
        totals.tokens, totals.labelled_tokens,
        100.0 * static_cast<double>(totals.labelled_tokens) / static_cast<double>(std::max<int64_t>(1, totals.tokens)),
        manifest.files.size(), static_cast<double>(bytes) / 1e6);
    fmt::print("made with the tokenizer of {}\n", manifest.model);
    const auto& max_length = manifest.settings.value("max_length", ordered_json());
    if (manifest.settings.value("packing", false) && max_length.is_number())
      fmt::print("packed: {:.1f} % of {} tokens a row are filled, {:.1f} samples each\n",
                 100.0 * static_cast<double>(totals.tokens) /
                     (static_cast<double>(std::max<int64_t>(1, totals.rows)) * max_length.get<double>()),
                 max_length.get<int64_t>(),
                 static_cast<double>(totals.sequences) / static_cast<double>(std::max<int64_t>(1, totals.rows)));
    if (options.max_length > 0)
      fmt::print("{} longer than {} tokens and would lose {} tokens\n",
                 overlong.rows == 1 ? "1 row is" : fmt::format("{} rows are", overlong.rows), options.max_length,
                 overlong.tokens);
    if (options.duplicates)
      fmt::print("{} again, token for token\n",
                 duplicates == 1 ? "1 row comes" : fmt::format("{} rows come", duplicates));
    print_lengths(totals.row_lengths);
    for (const data::BadRow& row : totals.first_bad_rows)
      cli::print_note(fmt::format("bad row: {}, line {}: {}", row.source, row.line, row.reason));
    for (const std::string& warning : manifest.warnings) cli::print_warning(warning);
  }
}

void merge(const ShardsOptions& options) {
  data::merge_shards({options.folders.begin(), options.folders.end()}, options.output);
  const data::ShardManifest manifest = data::read_shard_manifest(options.output);
  fmt::print("{}: {} rows, {} tokens, in {} shards\n", options.output, manifest.totals.rows, manifest.totals.tokens,
             manifest.files.size());
}

CLI::App* add_command(CLI::App& app, const char* name, const char* description, void (*body)(const ShardsOptions&),
                      const std::shared_ptr<ShardsOptions>& options) {
  auto* command = app.add_subcommand(name, description);
  command->add_option("SHARDS", options->folders, "folders that lathe-data tokenize has filled")->required();
  cli::add_common_options(*command, options->common);
  command->callback([options, body] { body(*options); });
  return command;
}

}  // namespace

void add_verify(CLI::App& app) {
  auto options = std::make_shared<ShardsOptions>();
  auto* command = add_command(app, "verify", "Compare every byte of shards with its hash", verify, options);
  add_shard_option(*command, options->shard, "every n-th shard from the i-th on");
}

void add_stats(CLI::App& app) {
  auto options = std::make_shared<ShardsOptions>();
  auto* command = add_command(app, "stats", "Rows, tokens, lengths and faults of shards", stats, options);
  command->add_option("--max_length", options->max_length, "count what rows would lose above so many tokens")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--duplicates", options->duplicates, "read all rows, and count those that have come before");
  add_shard_option(*command, options->shard,
                   "of --duplicates: what the n parts count adds up, each in an n-th of memory");
}

void add_merge(CLI::App& app) {
  auto options = std::make_shared<ShardsOptions>();
  auto* command = add_command(app, "merge", "Join folders of shards, such as the parts of --shard i/n", merge, options);
  command->add_option("--output", options->output, "the folder to make")->required();
}

}  // namespace lathe::programs
