// lathe-data inspect: rows as the trainer sees them, with what is trained marked, and what happens to the rest.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "core/json_value.h"
#include "core/printable.h"
#include "core/thread_pool.h"
#include "data/packing/packing.h"
#include "data/rows/sft_rows.h"
#include "data/shards/manifest.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/data/commands.h"
#include "programs/data/inspect_rows.h"
#include "programs/data/part.h"
#include "programs/data/row_pieces.h"
#include "programs/data/sft_row_options.h"
#include "text/model_text.h"

namespace lathe::programs {
namespace {

struct InspectOptions {
  cli::CommonOptions common;
  SftRowOptions sft_rows;
  std::string file, chat_template, kind = "sft", shard = "1/1";
  int64_t rows = 3;
};

struct Summary {
  int64_t tokens = 0, trained = 0, shortest = 0, longest = 0;
  std::vector<int64_t> lengths;  // of the examples, in their order
};

Summary summarise(const data::SftRows& rows) {
  Summary summary;
  for (const data::SftExample& example : rows.examples) {
    summary.lengths.push_back(static_cast<int64_t>(example.input_ids.size()));
    summary.tokens += summary.lengths.back();
    summary.trained += data::trained_tokens(example);
  }
  if (!summary.lengths.empty()) {
    const auto [low, high] = std::minmax_element(summary.lengths.begin(), summary.lengths.end());
    summary.shortest = *low;
    summary.longest = *high;
  }
  return summary;
}

void print_row(const data::SftRows& rows, size_t i, const std::shared_ptr<const data::Tokenizer>& tokenizer,
               bool colour) {
  const data::SftExample& example = rows.examples[i];
  fmt::print("\nline {}: {} tokens, {} trained\n", rows.lines[i], example.input_ids.size(),
             data::trained_tokens(example));
  print_pieces(pieces_of(example, tokenizer), colour);
}

void print_histogram(const Summary& summary) {
  constexpr int64_t bars = 10, bar_width = 40;
  const int64_t step = std::max<int64_t>(1, (summary.longest - summary.shortest + bars) / bars);
  std::vector<int64_t> counts((summary.longest - summary.shortest) / step + 1);
  for (const int64_t length : summary.lengths) ++counts[static_cast<size_t>((length - summary.shortest) / step)];
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  fmt::print("\ntokens in a row\n");
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t first = summary.shortest + static_cast<int64_t>(i) * step;
    std::string bar;
    for (int64_t j = 0; j < (counts[i] * bar_width + most - 1) / most; ++j) bar += "█";
    fmt::print("  {:>6}–{:<6} {:>7}  {}\n", first, first + step - 1, counts[i], bar);
  }
}

data::PackedRows packed(const InspectOptions& options, const data::SftRows& rows) {
  return data::pack_examples(rows.examples, options.sft_rows.max_length,
                             data::packing_strategy(options.sft_rows.packing_strategy));
}

void print_text(const InspectOptions& options, const data::SftRows& rows,
                const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  const bool colour = colours_output();
  const Summary summary = summarise(rows);
  fmt::print("{}: {} rows to train on, {} dropped, {} longer than max_length\n", options.file, rows.examples.size(),
             rows.dropped.size(), rows.truncated_lines.size());
  if (!rows.examples.empty()) {
    fmt::print("{} tokens, {} of them trained ({:.1f} %); {} to {} tokens a row\n", summary.tokens, summary.trained,
               100.0 * static_cast<double>(summary.trained) / static_cast<double>(std::max<int64_t>(1, summary.tokens)),
               summary.shortest, summary.longest);
    if (options.sft_rows.packing) {
      const data::PackedRows sequences = packed(options, rows);
      fmt::print("packed ({}) into {} sequences of at most {} tokens", options.sft_rows.packing_strategy,
                 sequences.examples.size(), options.sft_rows.max_length);
      fmt::print("{}\n", sequences.dropped == 0
                             ? ""
                             : fmt::format("; {} more dropped, with nothing to train on", sequences.dropped));
    }
    print_histogram(summary);
    if (options.rows > 0) fmt::print("\nTrained tokens are {}.\n", trained_mark(colour));
    for (size_t i = 0; i < std::min(rows.examples.size(), static_cast<size_t>(options.rows)); ++i)
      print_row(rows, i, tokenizer, colour);
  }
  for (size_t i = 0; i < rows.dropped.size(); ++i) {
    if (i == 0) fmt::print("\ndropped rows\n");
    if (i == 20) {
      fmt::print("  … and {} more (--json lists all)\n", rows.dropped.size() - i);
      break;
    }
    fmt::print("  line {}: {}\n", rows.dropped[i].line, printable(rows.dropped[i].reason));
  }
  for (const std::string& warning : rows.warnings) cli::print_warning(warning);
}

void print_json(const InspectOptions& options, const data::SftRows& rows,
                const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  using nlohmann::ordered_json;
  const Summary summary = summarise(rows);
  ordered_json result = {{"file", options.file},
                         {"rows", rows.examples.size()},
                         {"tokens", summary.tokens},
                         {"trained_tokens", summary.trained},
                         {"shortest_row_tokens", summary.shortest},
                         {"longest_row_tokens", summary.longest},
                         {"truncated_lines", rows.truncated_lines},
                         {"warnings", rows.warnings},
                         {"dropped", ordered_json::array()},
                         {"examples", ordered_json::array()}};
  if (options.sft_rows.packing) {
    const data::PackedRows sequences = packed(options, rows);
    result["packed_sequences"] = sequences.examples.size();
    result["dropped_sequences"] = sequences.dropped;
  }
  for (const data::DroppedRow& row : rows.dropped)
    result["dropped"].push_back({{"line", row.line}, {"reason", row.reason}});
  for (size_t i = 0; i < std::min(rows.examples.size(), static_cast<size_t>(options.rows)); ++i) {
    ordered_json example = {{"line", rows.lines[i]}};
    example.update(sequence_json(rows.examples[i], tokenizer));
    result["examples"].push_back(std::move(example));
  }
  fmt::print("{}\n", result.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

void inspect(InspectOptions options) {
  if (options.common.threads > 0) set_thread_count(options.common.threads);
  const data::RowPart part = parse_part(options.shard);
  if (options.kind != "sft" || data::is_shard_folder(options.file)) {
    inspect_rows({options.file, options.kind, options.rows, options.common.json, part}, options.sft_rows,
                 options.chat_template);
    return;
  }
  const nn::ModelFiles files = nn::open_model_files(options.sft_rows.model);
  const data::SftOptions sft = options.sft_rows.parsed(files.config.vocab_size);
  const auto tokenizer = text::load_tokenizer(files);
  const auto chat_template = chat_template_of(options.chat_template, *tokenizer);
  const data::SftRows rows = data::read_sft_rows(options.file, *tokenizer, chat_template.get(), sft, part);
  options.common.json ? print_json(options, rows, tokenizer) : print_text(options, rows, tokenizer);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto* command = app.add_subcommand("inspect", "Show rows as training sees them: text, tokens, what the loss covers");
  auto options = std::make_shared<InspectOptions>();
  command
      ->add_option(
          "FILE", options->file,
          "rows: JSON Lines of text, messages, prompt and completion, or input_ids; Arrow; or a folder of shards")
      ->required();
  add_kind_option(*command, options->kind);
  command->add_option("--rows", options->rows, "how many rows to print")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  add_sft_row_options(*command, options->sft_rows);
  command->add_option("--chat_template", options->chat_template, "a Jinja file instead of the model's own template");
  add_shard_option(*command, options->shard, "of the rows, groups of 1000 in turn, as tokenize takes them");
  cli::add_common_options(*command, options->common);
  command->callback([options] { inspect(*options); });
}

}  // namespace lathe::programs
