#include "data/documents/document_template.h"

#include "core/error.h"
#include "core/json.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

constexpr const char* shapes = "messages, prompt and completion, prompt, chosen and rejected, prompt, or text";

bool is_row(const ordered_json& row) {
  if (!row.is_object()) return false;
  const auto has = [&](const char* key) {
    return row.contains(key) && (row.at(key).is_string() || row.at(key).is_array());
  };
  return has("messages") || has("prompt") || has("text") || (has("chosen") && has("rejected"));
}

std::string last_heading(const std::string& headings) {
  const size_t at = headings.rfind(" > ");
  return at == std::string::npos ? headings : headings.substr(at + 3);
}

}  // namespace

DocumentTemplate::DocumentTemplate(const std::filesystem::path& file)
    : file_(file.string()), row_(read_json_file(file)) {
  if (!is_row(row_)) throw FormatError(file_, -1, std::string("is no row to fill: a JSON object with ") + shapes);
  for (const char* key : {"source", "line", "heading"})
    if (row_.contains(key))
      throw FormatError(file_, -1, std::string("has \"") + key + "\", which rows get by themselves");
  compile(row_, "");
  if (templates_.empty()) throw FormatError(file_, -1, "has no string to fill");
}

void DocumentTemplate::compile(const ordered_json& value, const std::string& place) {
  if (value.is_string()) {
    try {
      templates_.push_back(ChatTemplate::compile(value.get<std::string>()));
    } catch (const ConfigError& error) {
      throw FormatError(file_, -1, place.substr(1) + ": " + error.what());
    }
  } else if (value.is_structured()) {
    for (const auto& [key, member] : value.items()) compile(member, place + "." + key);
  }
}

bool DocumentTemplate::fill(ordered_json& value, size_t& next, const ordered_json& variables) const {
  if (value.is_string()) {
    ChatOptions options;
    options.variables = &variables;
    value = templates_[next++]->render(ordered_json::array(), options).text;
    return value.get_ref<const std::string&>().find_first_not_of(" \t\n") != std::string::npos;
  }
  if (!value.is_structured()) return true;
  for (ordered_json& member : value)
    if (!fill(member, next, variables)) return false;
  return true;
}

std::optional<ordered_json> DocumentTemplate::row(const DocumentPiece& piece, const std::string& source) const {
  const ordered_json variables = {{"text", piece.text},
                                  {"source", source},
                                  {"line", piece.line},
                                  {"heading", piece.heading},
                                  {"title", last_heading(piece.heading)}};
  ordered_json row = row_;
  size_t next = 0;
  if (!fill(row, next, variables)) return std::nullopt;
  row["source"] = source;
  row["line"] = piece.line;
  if (!piece.heading.empty()) row["heading"] = piece.heading;
  return row;
}

}  // namespace lathe::data
