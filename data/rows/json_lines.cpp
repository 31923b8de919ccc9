#include "data/rows/json_lines.h"

#include <simdjson.h>

#include <cstring>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/mapped_file.h"
#include "data/readers/row_source.h"
#include "data/readers/text_lines.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

// Rows that are unpacked are held; a plain file is mapped, and needs no bound.
constexpr int64_t max_held_bytes = int64_t{4} << 30;

using Entries = std::vector<std::pair<const std::string, ordered_json>>;

// The base class of an object: its own insertion compares with every key before it.
Entries& entries_of(ordered_json& object) { return static_cast<Entries&>(*object.get_ptr<ordered_json::object_t*>()); }

// Empties lists and objects from the innermost out, as deep as rows may be: nothing of it allocates.
void take_apart(ordered_json& value) noexcept {
  if (value.is_array()) {
    for (ordered_json& item : value) take_apart(item);
    value.get_ptr<ordered_json::array_t*>()->clear();
  } else if (value.is_object()) {
    for (auto& entry : entries_of(value)) take_apart(entry.second);
    entries_of(value).clear();
  }
}

// In place, so that there is one value to take apart wherever memory ends.
void convert(const simdjson::dom::element& element, ordered_json& into) {
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::ARRAY: {
      const simdjson::dom::array items(element);
      into = ordered_json::array();
      auto& array = *into.get_ptr<ordered_json::array_t*>();
      array.reserve(items.size());
      for (const simdjson::dom::element item : items) convert(item, array.emplace_back());
      return;
    }
    case element_type::OBJECT: {
      const simdjson::dom::object members(element);
      into = ordered_json::object();
      Entries& entries = entries_of(into);
      entries.reserve(members.size());
      std::unordered_map<std::string_view, size_t> places;
      for (const auto& [key, value] : members) {
        const auto [place, added] = places.emplace(key, entries.size());
        if (added) entries.emplace_back(key, nullptr);
        ordered_json& member = entries[place->second].second;
        take_apart(member);  // the last of two counts
        convert(value, member);
      }
      return;
    }
    case element_type::INT64: into = int64_t(element); return;
    case element_type::UINT64: into = uint64_t(element); return;
    case element_type::DOUBLE: into = double(element); return;
    case element_type::STRING: into = std::string(std::string_view(element)); return;
    case element_type::BOOL: into = bool(element); return;
    case element_type::NULL_VALUE: into = nullptr; return;
  }
}

std::string reason_of(simdjson::error_code error) {
  switch (error) {
    case simdjson::DEPTH_ERROR: return "is nested deeper than " + std::to_string(max_json_nesting) + " levels";
    case simdjson::UTF8_ERROR: return "is not valid UTF-8";
    case simdjson::NUMBER_ERROR: return "holds a number that is malformed or needs more than 64 bits";
    case simdjson::MEMALLOC:
    case simdjson::CAPACITY: return "is too large to be parsed";
    default: return std::string("is not valid JSON: ") + simdjson::error_message(error);
  }
}

}  // namespace

JsonLines JsonLines::open(const std::filesystem::path& path) {
  JsonLines lines;
  lines.file_ = path == standard_input ? "standard input" : path.string();
  std::error_code ignored;
  if (path != standard_input && !std::filesystem::is_directory(path, ignored)) {
    const auto mapped = MappedFile::open(path);
    const std::string_view text(reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size());
    expect_no_parquet(text, lines.file_);
    if (!begins_as_packed(text) && !begins_as_arrow(text)) {
      lines.owner_ = mapped;
      lines.text_ = text;
      lines.find_rows();
      return lines;
    }
  }
  lines.read_rows(path.string());
  return lines;
}

void JsonLines::find_rows() {
  expect_utf8(text_, file_);
  size_t begin = byte_order_mark_bytes(text_);
  for (int64_t line = 1; begin < text_.size(); ++line) {
    const void* newline = std::memchr(text_.data() + begin, '\n', text_.size() - begin);
    const size_t end = newline ? static_cast<size_t>(static_cast<const char*>(newline) - text_.data()) : text_.size();
    if (static_cast<int64_t>(end - begin) > default_max_row_bytes) throw too_long_a_line(file_, line);
    if (!is_blank_line(text_.substr(begin, end - begin))) rows_.push_back({begin, end, line});
    begin = end + 1;
  }
  if (!rows_.empty()) expect_no_json_array(text(0), line(0), file_);
}

void JsonLines::read_rows(const std::string& input) {
  auto bytes = std::make_shared<std::string>();
  int64_t rows_before = 0;  // of the files before: rows of a folder are counted through all of them
  for (const std::string& file : files_of_input(input, "dataset")) {
    const std::unique_ptr<RowSource> source = open_row_source(file);
    while (const auto row = source->next()) {
      if (rows_.empty() && !source->is_arrow()) expect_no_json_array(row->text, row->number, file_);
      if (static_cast<int64_t>(bytes->size() + row->text.size()) > max_held_bytes)
        throw ResourceError(file_ + ": more than " + std::to_string(max_held_bytes >> 30) +
                            " GiB of rows when unpacked, which are held in memory; make shards of it (lathe-data "
                            "tokenize), or unpack it");
      rows_.push_back({bytes->size(), bytes->size() + row->text.size(), rows_before + row->number});
      *bytes += row->text;
    }
    rows_before = std::ssize(rows_);
  }
  text_ = *bytes;
  owner_ = std::move(bytes);
}

std::string_view JsonLines::text(int64_t row) const {
  const Row& place = rows_[static_cast<size_t>(row)];
  return text_.substr(place.begin, place.end - place.begin);
}

ordered_json JsonLines::parse(int64_t row) const { return parse_json_row(text(row)); }

ordered_json parse_json_row(std::string_view line) {
  thread_local simdjson::dom::parser parser;
  if (parser.allocate(line.size(), max_json_nesting) != simdjson::SUCCESS) throw Error(reason_of(simdjson::MEMALLOC));
  simdjson::dom::element element;
  // The parser reads past the end of its input: it gets a padded copy.
  if (const auto error = parser.parse(line.data(), line.size(), true).get(element)) throw Error(reason_of(error));
  if (element.type() != simdjson::dom::element_type::OBJECT) throw Error("is not a JSON object {…}");
  ordered_json row;
  try {
    convert(element, row);
  } catch (...) {
    take_apart(row);
    throw;
  }
  return row;
}

JsonRow::JsonRow(std::string_view line) : object_(std::make_unique<ordered_json>()) { *object_ = parse_json_row(line); }

JsonRow::~JsonRow() { take_apart(*object_); }

}  // namespace lathe::data
