// lathe-data documents: folders of text and Markdown into rows.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json_value.h"
#include "data/documents/document_rows.h"
#include "data/documents/document_template.h"
#include "programs/cli/messages.h"
#include "programs/cli/program.h"
#include "programs/cli/progress.h"
#include "programs/data/commands.h"
#include "programs/data/part.h"
#include "text/model_text.h"

namespace lathe::programs {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct DocumentOptions {
  cli::CommonOptions common;
  std::vector<std::string> inputs;
  std::string output, model, row_template, split = "document", shard = "1/1";
  int64_t max_tokens = 1024;
  bool keep_duplicates = false, skip_bad_files = false, overwrite = false;
};

struct Counts {
  int64_t files = 0, bad_files = 0, rows = 0, duplicates = 0, unfilled = 0, bytes = 0;
};

data::DocumentSettings settings_of(const DocumentOptions& options) {
  data::DocumentSettings settings;
  settings.split = options.split == "tokens"      ? data::DocumentSplit::tokens
                   : options.split == "paragraph" ? data::DocumentSplit::paragraph
                                                  : data::DocumentSplit::document;
  settings.max_tokens = options.max_tokens;
  if (settings.split != data::DocumentSplit::tokens) return settings;
  if (options.model.empty()) throw ConfigError("model", "is needed by --split tokens, for its tokenizer");
  const auto tokenizer = text::load_tokenizer(nn::open_model_files(options.model));
  settings.count_tokens = [tokenizer](std::string_view text) {
    return std::ssize(tokenizer->encode(text, data::SpecialTokens::as_text, data::SequenceTokens::none));
  };
  return settings;
}

void write_rows(AtomicFile& output, const data::DocumentFile& file, const data::DocumentSettings& settings,
                const data::DocumentTemplate* row_template, const DocumentOptions& options, data::SeenTexts& seen,
                Counts& counts) {
  std::string document = data::read_document(file.path);
  counts.bytes += std::ssize(document);
  for (const data::DocumentPiece& piece :
       data::pieces_of(std::move(document), data::document_format(file.path), settings)) {
    if (!seen.insert(piece.text)) {
      ++counts.duplicates;
      if (!options.keep_duplicates) continue;
    }
    ordered_json row = {{"text", piece.text}, {"source", file.source}, {"line", piece.line}};
    if (row_template != nullptr) {
      std::optional<ordered_json> filled = row_template->row(piece, file.source);
      if (!filled) {
        ++counts.unfilled;
        continue;
      }
      row = std::move(*filled);
    } else if (!piece.heading.empty()) {
      row["heading"] = piece.heading;
    }
    const std::string line = row.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    output.write(line);
    ++counts.rows;
  }
}

void documents(const DocumentOptions& options) {
  const data::RowPart part = parse_part(options.shard);
  if (fs::exists(options.output) && !options.overwrite)
    throw ConfigError("output", options.output + " exists; choose another file, or give --overwrite");
  const data::DocumentSettings settings = settings_of(options);
  std::optional<data::DocumentTemplate> row_template;
  if (!options.row_template.empty()) row_template.emplace(options.row_template);
  const std::vector<data::DocumentFile> files = data::document_files(options.inputs);
  for (const data::DocumentFile& file : files) {
    std::error_code ignored;
    if (fs::equivalent(file.path, options.output, ignored))
      throw ConfigError("output", options.output + " is among the documents");
  }
  AtomicFile output(options.output);
  data::SeenTexts seen;
  Counts counts;
  {
    cli::Progress progress("documents", std::ssize(files));
    for (int64_t i = 0; i < std::ssize(files); ++i) {
      progress.update(i, fmt::format("{} rows  {:.1f} MB", counts.rows, static_cast<double>(counts.bytes) / 1e6));
      if (i % part.parts != part.part - 1) continue;
      try {
        write_rows(output, files[static_cast<size_t>(i)], settings, row_template ? &*row_template : nullptr, options,
                   seen, counts);
        ++counts.files;
      } catch (const FormatError& error) {
        if (!options.skip_bad_files) throw;
        ++counts.bad_files;
        cli::print_warning(std::string("left out: ") + error.what());
      }
    }
  }
  if (counts.rows == 0 && counts.unfilled > 0)
    throw ConfigError("template",
                      "leaves a string blank in each of the " + std::to_string(counts.unfilled) + " pieces");
  if (counts.rows == 0) throw ConfigError("input", "holds no text to make rows of");
  output.commit();
  if (options.common.json) {
    fmt::print("{}\n", ordered_json{{"output", options.output},
                                    {"files", counts.files},
                                    {"bad_files", counts.bad_files},
                                    {"rows", counts.rows},
                                    {"duplicates", counts.duplicates},
                                    {"unfilled", counts.unfilled},
                                    {"text_bytes", counts.bytes}}
                           .dump(2));
    return;
  }
  fmt::print("{}: {} rows of {} files, {} duplicates {}\n", options.output, counts.rows, counts.files,
             counts.duplicates, options.keep_duplicates ? "kept" : "left out");
  if (counts.unfilled > 0)
    cli::print_note(fmt::format("{} pieces left out: the template has blanks there", counts.unfilled));
}

}  // namespace

void add_documents(CLI::App& app) {
  auto* command = app.add_subcommand("documents", "Turn text and Markdown files into rows, each text once");
  auto options = std::make_shared<DocumentOptions>();
  command
      ->add_option("INPUT", options->inputs, "files, or folders with .txt, .text, .md and .markdown files below them")
      ->required();
  command->add_option("--output", options->output, "the JSON Lines file to write: text, source, line, heading")
      ->required();
  command
      ->add_option("--split", options->split,
                   "a row for each document, for each paragraph, or for as many whole paragraphs as max_tokens take")
      ->capture_default_str()
      ->check(CLI::IsMember({"document", "paragraph", "tokens"}));
  command->add_option("--model", options->model, "a .gguf file or a Hugging Face directory, whose tokenizer counts");
  command->add_option("--max_tokens", options->max_tokens, "of a row, with --split tokens")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 20));
  command->add_flag("--keep_duplicates", options->keep_duplicates,
                    "keep texts that differ from an earlier one in spaces and capitals alone, or not at all");
  command->add_flag("--skip_bad_files", options->skip_bad_files, "leave out files that are not UTF-8");
  command->add_flag("--overwrite", options->overwrite, "replace the output where it exists");
  command->add_option(
      "--template", options->row_template,
      "a JSON file: a row (messages, or prompt and completion) whose strings are Jinja with text, source, "
      "line, heading and title");
  add_shard_option(*command, options->shard, "every n-th file from the i-th on (duplicates are found within)");
  cli::add_common_options(*command, options->common);
  command->callback([options] { documents(*options); });
}

}  // namespace lathe::programs
