#include "data/rows/json_lines.h"

#include <simdjson.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace lathe::data {
namespace {

using nlohmann::ordered_json;

ordered_json converted(const simdjson::dom::element& element) {
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::ARRAY: {
      ordered_json array = ordered_json::array();
      for (const simdjson::dom::element item : simdjson::dom::array(element)) array.push_back(converted(item));
      return array;
    }
    case element_type::OBJECT: {
      std::vector<std::pair<std::string, ordered_json>> members;
      for (const auto& [key, value] : simdjson::dom::object(element)) members.emplace_back(key, converted(value));
      return json_object(std::move(members));
    }
    case element_type::INT64: return int64_t(element);
    case element_type::UINT64: return uint64_t(element);
    case element_type::DOUBLE: return double(element);
    case element_type::STRING: return std::string(std::string_view(element));
    case element_type::BOOL: return bool(element);
    case element_type::NULL_VALUE: break;
  }
  return nullptr;
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

// What the file's first bytes give away, or nullptr for UTF-8. JSON begins with an ASCII character: with zeros beside
// it in the wider encodings.
const char* wide_encoding(std::string_view text) {
  const auto begins = [&](std::string_view bytes) { return text.starts_with(bytes); };
  const auto zero = [&](size_t i) { return i < text.size() && text[i] == '\0'; };
  if (begins({"\xFF\xFE\0\0", 4}) || begins({"\0\0\xFE\xFF", 4})) return "UTF-32";
  if (begins("\xFF\xFE") || begins("\xFE\xFF")) return "UTF-16";
  if (text.size() < 4) return nullptr;
  if ((zero(0) && zero(1) && zero(2)) || (zero(1) && zero(2) && zero(3))) return "UTF-32";
  return zero(0) != zero(1) ? "UTF-16" : nullptr;
}

}  // namespace

JsonLines JsonLines::open(const std::filesystem::path& path) {
  JsonLines lines;
  lines.file_ = path.string();
  lines.bytes_ = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(lines.bytes_->bytes().data()),
                              lines.bytes_->bytes().size());
  if (text.starts_with("\x1F\x8B") || text.starts_with("\x28\xB5\x2F\xFD")) {
    throw FormatError(lines.file_, 0, "this is a compressed file; unpack it first (gunzip or unzstd)");
  }
  if (const char* encoding = wide_encoding(text)) {
    throw FormatError(
        lines.file_, 0,
        std::string("this is ") + encoding + "; JSON Lines is UTF-8 (iconv -f " + encoding + " -t UTF-8 makes it so)");
  }
  size_t begin = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;  // a byte order mark
  for (int64_t line = 1; begin < text.size(); ++line) {
    const void* newline = std::memchr(text.data() + begin, '\n', text.size() - begin);
    const size_t end = newline ? static_cast<size_t>(static_cast<const char*>(newline) - text.data()) : text.size();
    if (text.substr(begin, end - begin).find_first_not_of(" \t\r") != std::string_view::npos) {
      lines.rows_.push_back({begin, end, line});
    }
    begin = end + 1;
  }
  if (!lines.rows_.empty()) {
    const std::string_view first = lines.text(0);
    if (first[first.find_first_not_of(" \t\r")] == '[') {
      throw FormatError(lines.file_, -1,
                        "line " + std::to_string(lines.line(0)) +
                            ": this is a JSON array; JSON Lines has one object to a line, without "
                            "brackets and commas around them (jq -c '.[]' makes it so)");
    }
  }
  return lines;
}

std::string_view JsonLines::text(int64_t row) const {
  const Row& place = rows_[static_cast<size_t>(row)];
  return {reinterpret_cast<const char*>(bytes_->bytes().data()) + place.begin, place.end - place.begin};
}

ordered_json JsonLines::parse(int64_t row) const {
  thread_local simdjson::dom::parser parser;
  const std::string_view line = text(row);
  if (parser.allocate(line.size(), max_json_nesting) != simdjson::SUCCESS) throw Error(reason_of(simdjson::MEMALLOC));
  simdjson::dom::element element;
  // The parser reads past the end of its input: it gets a padded copy.
  if (const auto error = parser.parse(line.data(), line.size(), true).get(element)) throw Error(reason_of(error));
  if (element.type() != simdjson::dom::element_type::OBJECT) throw Error("is not a JSON object {…}");
  return converted(element);
}

}  // namespace lathe::data
