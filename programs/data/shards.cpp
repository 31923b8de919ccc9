// lathe-data verify, stats and merge: folders of shards.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/shards/shards.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/data/commands.h"

namespace lathe::programs {
namespace {

using nlohmann::ordered_json;

struct ShardsOptions {
  cli::CommonOptions common;
  std::vector<std::string> folders;
  std::string output;
};

void verify(const ShardsOptions& options) {
  for (const std::string& folder : options.folders) {
    data::verify_shards(folder);
    const data::ShardManifest manifest = data::read_shard_manifest(folder);
    fmt::print("{}: {} shards are whole, {} rows, {} tokens\n", folder, manifest.files.size(), manifest.totals.rows,
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

void stats(const ShardsOptions& options) {
  for (const std::string& folder : options.folders) {
    const data::ShardManifest manifest = data::read_shard_manifest(folder);
    const data::ShardTotals& totals = manifest.totals;
    int64_t bytes = 0;
    for (const data::ShardEntry& file : manifest.files) bytes += file.bytes;
    if (options.common.json) {
      const ordered_json result = {{"folder", folder},
                                   {"model", manifest.model},
                                   {"tokenizer", manifest.tokenizer},
                                   {"settings", manifest.settings},
                                   {"shards", manifest.files.size()},
                                   {"bytes", bytes},
                                   {"totals", to_json(totals)},
                                   {"warnings", manifest.warnings}};
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
  add_command(app, "verify", "Compare every byte of shards with its hash", verify, std::make_shared<ShardsOptions>());
}

void add_stats(CLI::App& app) {
  add_command(app, "stats", "Rows, tokens, lengths and faults of shards", stats, std::make_shared<ShardsOptions>());
}

void add_merge(CLI::App& app) {
  auto options = std::make_shared<ShardsOptions>();
  auto* command = add_command(app, "merge", "Join folders of shards, such as the parts of --shard i/n", merge, options);
  command->add_option("--output", options->output, "the folder to make")->required();
}

}  // namespace lathe::programs
