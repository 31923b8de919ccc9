#include "programs/data/inspect_rows.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/json_value.h"
#include "core/printable.h"
#include "data/readers/row_source.h"
#include "data/shards/row_kinds.h"
#include "data/shards/shards.h"
#include "data/shards/text_identity.h"
#include "programs/cli/messages.h"
#include "programs/data/row_pieces.h"
#include "text/model_text.h"

namespace lathe::programs {
namespace {

using nlohmann::ordered_json;

// A row with the place where it stands.
struct Row {
  std::string place;
  std::vector<data::SftExample> sequences;
  std::string text;
};

std::vector<Row> rows_of_shards(const data::Shards& shards, int64_t most, data::RowPart part) {
  std::vector<Row> rows;
  for (int64_t i = 0; i < shards.rows() && std::ssize(rows) < most; ++i) {
    if (!part.has(i)) continue;
    Row& row = rows.emplace_back();
    row.place = fmt::format("row {}", i + 1);
    row.text = shards.row_text(i);
    const auto [first, last] = shards.sequences_of_row(i);
    for (int64_t s = first; s < last; ++s) {
      data::SftExample& example = row.sequences.emplace_back();
      shards.append_sequence(s, example.input_ids, example.labels);
    }
  }
  return rows;
}

std::vector<Row> rows_of_file(const std::string& input, const data::ShardRowReader& reader, int64_t most,
                              data::RowPart part) {
  std::vector<Row> rows;
  int64_t read = 0;
  for (const std::string& file : data::files_of_input(input, "FILE")) {
    const std::unique_ptr<data::RowSource> source = data::open_row_source(file);
    while (std::ssize(rows) < most) {
      const std::optional<data::TextLine> line = source->next();
      if (!line) break;
      if (!part.has(read++)) continue;
      data::ShardRow made = reader.read(line->text, false, source->name(), line->number);
      const std::string place = fmt::format("line {}", line->number);
      if (!made.prepared.error.empty()) throw FormatError(source->name(), -1, place + ": " + made.prepared.error);
      if (!made.prepared.dropped_because.empty()) {
        cli::print_warning(fmt::format("{}, {}: dropped, {}", source->name(), place, made.prepared.dropped_because));
        continue;
      }
      Row& row = rows.emplace_back(Row{place, {std::move(made.prepared.example)}, std::move(made.text)});
      if (made.rejected) row.sequences.push_back(std::move(*made.rejected));
    }
  }
  return rows;
}

std::string name_of_sequence(const std::string& kind, size_t index) {
  if (kind == "preference") return index == 0 ? "chosen" : "rejected";
  return kind == "prompt" ? "prompt" : fmt::format("sequence {}", index + 1);
}

// The row of a prompt without the prompt.
ordered_json columns_of(const std::string& text) {
  return text.empty() ? ordered_json::object() : data::prompt_row({}, text, "the row").columns;
}

void print_json(const InspectedRows& inspected, const std::string& kind, const std::vector<Row>& rows,
                const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  ordered_json result = {{"file", inspected.file}, {"kind", kind}, {"rows", ordered_json::array()}};
  for (const Row& row : rows) {
    ordered_json json = {{"place", row.place}, {"sequences", ordered_json::array()}};
    for (const data::SftExample& example : row.sequences)
      json["sequences"].push_back(sequence_json(example, tokenizer));
    if (kind == "prompt") json["columns"] = columns_of(row.text);
    result["rows"].push_back(std::move(json));
  }
  fmt::print("{}\n", result.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

void print_text(const std::string& kind, const std::vector<Row>& rows,
                const std::shared_ptr<const data::Tokenizer>& tokenizer) {
  const bool colour = colours_output();
  if (kind != "prompt") fmt::print("Trained tokens are {}.\n", trained_mark(colour));
  for (const Row& row : rows) {
    fmt::print("\n{}\n", row.place);
    for (size_t i = 0; i < row.sequences.size(); ++i) {
      const data::SftExample& example = row.sequences[i];
      fmt::print("  {}: {} tokens, {} trained\n", name_of_sequence(kind, i), example.input_ids.size(),
                 data::trained_tokens(example));
      print_pieces(pieces_of(example, tokenizer), colour);
    }
    if (kind == "prompt")
      fmt::print("  columns: {}\n",
                 printable(columns_of(row.text).dump(-1, ' ', false, ordered_json::error_handler_t::replace)));
  }
}

}  // namespace

std::shared_ptr<const data::ChatTemplate> chat_template_of(const std::string& file, const data::Tokenizer& tokenizer) {
  if (file.empty()) return data::ChatTemplate::of(tokenizer);
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw ConfigError("chat_template", "the file " + file + " cannot be read");
  return data::ChatTemplate::compile(std::string(std::istreambuf_iterator<char>(stream), {}));
}

void inspect_rows(const InspectedRows& inspected, const SftRowOptions& options, const std::string& chat_template) {
  const nn::ModelFiles files = nn::open_model_files(options.model);
  const auto tokenizer = text::load_tokenizer(files);
  std::string kind = inspected.kind;
  std::vector<Row> rows;
  if (data::is_shard_folder(inspected.file)) {
    const data::Shards shards(inspected.file);
    if (shards.manifest().tokenizer != data::tokenizer_identity(*tokenizer))
      throw ConfigError("model", inspected.file + " was made with the tokenizer of " + shards.manifest().model +
                                     ", and that of " + options.model + " is another");
    kind = data::kind_of(shards.manifest().settings);
    rows = rows_of_shards(shards, inspected.rows, inspected.part);
  } else {
    const auto compiled = chat_template_of(chat_template, *tokenizer);
    const data::SftOptions sft = options.parsed(files.config.vocab_size);
    const data::PreferenceOptions preference{sft.max_length, sft.truncation_mode, sft.vocab_size};
    const data::ShardRowReader reader(data::row_kind(kind), *tokenizer, compiled.get(), sft, preference,
                                      files.config.vocab_size);
    rows = rows_of_file(inspected.file, reader, inspected.rows, inspected.part);
  }
  inspected.json ? print_json(inspected, kind, rows, tokenizer) : print_text(kind, rows, tokenizer);
}

}  // namespace lathe::programs
