// lathe-data tokenize: rows of text into shards that lathe-train maps.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/json_value.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "data/shards/shard_tokenization.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/cli/progress.h"
#include "programs/cli/stop_signals.h"
#include "programs/data/commands.h"
#include "programs/data/part.h"
#include "programs/data/sft_row_options.h"
#include "text/model_text.h"

namespace lathe::programs {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

struct TokenizeOptions {
  cli::CommonOptions common;
  SftRowOptions rows;
  std::vector<std::string> inputs;
  std::string output, format = "auto", too_long = "truncate", shard = "1/1", kind = "sft";
  int64_t shard_tokens = int64_t{16} << 20, max_row_mib = 64;
  bool skip_bad_rows = false, compress = false;
};

data::ShardTokenizationSettings settings_of(const TokenizeOptions& options, int64_t vocab_size) {
  data::ShardTokenizationSettings settings;
  settings.inputs = options.inputs;
  settings.output = options.output;
  settings.model = fs::path(options.rows.model).lexically_normal().filename().string();
  settings.rows = options.rows.parsed(vocab_size);
  settings.rows.too_long = options.too_long == "error" ? data::TooLong::error : data::TooLong::truncate;
  settings.kind = data::row_kind(options.kind);
  if (settings.kind != data::RowKind::sft && settings.rows.packing)
    throw ConfigError("packing", "is for rows of kind sft; " + options.kind + " rows are not packed");
  settings.preferences = {settings.rows.max_length, settings.rows.truncation_mode, settings.rows.vocab_size};
  settings.compression = options.compress ? data::Compression::zstd : data::Compression::none;
  settings.packing_strategy = data::packing_strategy(options.rows.packing_strategy);
  settings.packing_strategy_name = options.rows.packing_strategy;
  settings.format = options.format == "jsonl"  ? data::RowFormat::json_lines
                    : options.format == "text" ? data::RowFormat::text
                                               : data::RowFormat::by_name;
  settings.bad_rows = options.skip_bad_rows ? data::BadRows::skip : data::BadRows::error;
  settings.shard_tokens = options.shard_tokens;
  settings.max_row_bytes = options.max_row_mib << 20;
  settings.part = parse_part(options.shard);
  return settings;
}

// 0 where a size cannot be known: standard input, a pipe.
int64_t bytes_of_inputs(const std::vector<std::string>& inputs) {
  int64_t bytes = 0;
  for (const std::string& input : inputs) {
    std::error_code error;
    const auto size = fs::file_size(input, error);
    if (error) return 0;
    bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

void run_steps(data::ShardTokenization& work, const TokenizeOptions& options, Clock::time_point start) {
  const int64_t total = bytes_of_inputs(options.inputs);
  cli::Progress progress("tokenize", total >> 20);
  const cli::StopSignals signals;
  while (work.step()) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const int64_t done = std::max<int64_t>(1, work.source_bytes()) >> 20;
    progress.update(total > 0 ? done : 0,
                    fmt::format("MiB  {} rows  {} tokens  {:.1f} MB/s", work.totals().rows, work.totals().tokens,
                                static_cast<double>(work.text_bytes()) / 1e6 / std::max(seconds, 1e-9)));
    if (const int signal = signals.received(); signal != 0)
      throw cli::Stopped{signal, "stopped; the same command goes on from the last whole shard in " + options.output};
  }
}

void tokenize(const TokenizeOptions& options) {
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const nn::ModelFiles files = nn::open_model_files(options.rows.model);
  const text::ModelText text = text::load_model_text(files);
  const auto start = Clock::now();
  data::ShardTokenization work(settings_of(options, text.vocab_size), *text.tokenizer, text.chat_template.get());
  if (work.done()) {
    cli::print_note(options.output + ": made already from these inputs with these settings");
  } else if (work.rows_done_before() > 0) {
    cli::print_note(fmt::format("{}: goes on after {} rows", options.output, work.rows_done_before()));
  }
  run_steps(work, options, start);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const data::ShardManifest manifest = data::read_shard_manifest(options.output);
  for (const std::string& warning : manifest.warnings) cli::print_warning(warning);
  const double rate = static_cast<double>(work.text_bytes()) / std::max(seconds, 1e-9);
  if (options.common.json) {
    int64_t shard_bytes = 0;
    for (const data::ShardEntry& file : manifest.files) shard_bytes += file.bytes;
    const ordered_json result = {{"output", options.output},
                                 {"rows", manifest.totals.rows},
                                 {"sequences", manifest.totals.sequences},
                                 {"tokens", manifest.totals.tokens},
                                 {"labelled_tokens", manifest.totals.labelled_tokens},
                                 {"bad_rows", manifest.totals.bad_rows},
                                 {"shards", manifest.files.size()},
                                 {"shard_bytes", shard_bytes},
                                 {"text_bytes", work.text_bytes()},
                                 {"seconds", seconds},
                                 {"bytes_per_second", rate},
                                 {"threads", thread_count()},
                                 {"peak_rss_bytes", process_peak_rss_bytes()}};
    fmt::print("{}\n", result.dump(2, ' ', false, ordered_json::error_handler_t::replace));
    return;
  }
  fmt::print("{}: {} rows, {} tokens, {} of them learnt, in {} shards ({:.1f} MB/s on {} threads)\n", options.output,
             manifest.totals.rows, manifest.totals.tokens, manifest.totals.labelled_tokens, manifest.files.size(),
             rate / 1e6, thread_count());
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto* command = app.add_subcommand("tokenize", "Turn rows into shards: token ids that lathe-train maps");
  auto options = std::make_shared<TokenizeOptions>();
  command
      ->add_option("INPUT", options->inputs,
                   "files of rows, plain or packed (.gz, .zst), Arrow or folders of save_to_disk, in this order; - is "
                   "standard input")
      ->required();
  command->add_option("--output", options->output, "the folder to fill; a killed command goes on in it")->required();
  command->add_option("--format", options->format, "jsonl, text (a row to a line), or auto: text for .txt")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "jsonl", "text"}));
  add_kind_option(*command, options->kind);
  add_sft_row_options(*command, options->rows);
  command->add_option("--too_long", options->too_long, "truncate rows above max_length, or stop with an error")
      ->capture_default_str()
      ->check(CLI::IsMember({"truncate", "error"}));
  command->add_flag("--skip_bad_rows", options->skip_bad_rows,
                    "count and list rows that are none, instead of stopping");
  add_shard_option(*command, options->shard, "this process takes the i-th of n parts (lathe-data merge joins)");
  command->add_option("--shard_tokens", options->shard_tokens, "a shard ends with the row that reaches so many")
      ->capture_default_str();
  command->add_flag("--compress", options->compress,
                    "zstd in blocks of 64 KiB: smaller files, which training unpacks as it reads");
  command->add_option("--max_row_mib", options->max_row_mib, "a longer row is an error")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  cli::add_common_options(*command, options->common);
  command->callback([options] { tokenize(*options); });
}

}  // namespace lathe::programs
