// Methods of str that templates may call, and the text functions that filters share with them.
#include <utf8proc.h>

#include <algorithm>
#include <cstdio>

#include "data/chat_template/builtins.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {
namespace {

List words_of(const Text& text, int64_t limit, bool from_right) {
  // Splits at runs of white space.
  std::vector<TextRange> words;
  for (size_t at = 0; at < text.bytes.size();) {
    size_t next = at;
    if (is_python_space(next_code_point(text.bytes, next))) {
      at = next;
      continue;
    }
    size_t end = at;
    for (size_t look = at; look < text.bytes.size(); end = look) {
      if (is_python_space(next_code_point(text.bytes, look))) break;
    }
    words.push_back({at, end});
    at = end;
  }
  List parts;
  if (limit >= 0 && static_cast<size_t>(limit) < words.size()) {
    const auto cuts = static_cast<size_t>(limit);
    if (from_right) {
      words[words.size() - cuts - 1].begin = words.front().begin;
      words.erase(words.begin(), words.end() - static_cast<std::ptrdiff_t>(cuts) - 1);
    } else {
      words[cuts].end = stripped(text.bytes, nullptr, false, true).end;
      words.resize(cuts + 1);
      if (cuts < words.size()) words[cuts].end = text.bytes.size();
    }
  }
  for (const TextRange& word : words) parts.items.emplace_back(text.slice(word.begin, word.end));
  return parts;
}

List split_text(const Text& text, const CallArguments& arguments, bool from_right, Budget& budget) {
  const Text* separator = arguments.text_or_null(0, "sep");
  const int64_t limit = arguments.integer_or(1, "maxsplit", -1);
  budget.spend(text.bytes.size());
  if (!separator) return words_of(text, limit, from_right);
  if (separator->bytes.empty()) refuse(budget, "split() with an empty separator");
  std::vector<size_t> places;
  if (from_right) {
    for (size_t end = text.bytes.size(); limit < 0 || places.size() < static_cast<size_t>(limit);) {
      if (end < separator->bytes.size()) break;
      const size_t at = find_last_text(text.bytes, separator->bytes, end - separator->bytes.size());
      if (at == std::string::npos) break;
      places.push_back(at);
      end = at;
    }
    std::reverse(places.begin(), places.end());
  } else {
    for (size_t at = 0; (limit < 0 || places.size() < static_cast<size_t>(limit)) &&
                        (at = find_text(text.bytes, separator->bytes, at)) != std::string::npos;
         at += separator->bytes.size()) {
      places.push_back(at);
    }
  }
  List parts;
  size_t begin = 0;
  for (const size_t at : places) {
    parts.items.emplace_back(text.slice(begin, at));
    begin = at + separator->bytes.size();
  }
  parts.items.emplace_back(text.slice(begin, text.bytes.size()));
  return parts;
}

List lines_of(const Text& text, bool keep_ends) {
  List lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.bytes.size();) {
    const size_t end = at;
    const char32_t c = next_code_point(text.bytes, at);
    const bool breaks = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!breaks) continue;
    if (c == '\r' && at < text.bytes.size() && text.bytes[at] == '\n') ++at;
    lines.items.emplace_back(text.slice(begin, keep_ends ? at : end));
    begin = at;
  }
  if (begin < text.bytes.size()) lines.items.emplace_back(text.slice(begin, text.bytes.size()));
  return lines;
}

bool is_letter(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool all_characters(std::string_view text, bool (*wanted)(char32_t)) {
  for (size_t at = 0; at < text.size();) {
    if (!wanted(next_code_point(text, at))) return false;
  }
  return !text.empty();
}

// str.title(): a letter that follows no letter becomes upper case, every other lower case.
std::string title_case(std::string_view text) {
  std::string result;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_code_point(text, at));
    append_code_point(result, static_cast<char32_t>(in_word ? utf8proc_tolower(c) : utf8proc_totitle(c)));
    in_word = is_letter(static_cast<char32_t>(c));
  }
  return result;
}

// "{} and {0}, {name}": positions and names without conversions.
Text brace_format(const Text& format, const CallArguments& arguments, Budget& budget) {
  Text result;
  size_t automatic = 0, copied = 0;
  const std::string& text = format.bytes;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '{' && text[at] != '}') continue;
    result.append(format.slice(copied, at));
    copied = at + 1;
    if (at + 1 < text.size() && text[at + 1] == text[at]) {
      copied = ++at;
      continue;
    }
    const size_t end = text[at] == '{' ? text.find('}', at) : std::string::npos;
    if (end == std::string::npos) refuse(budget, "format() with a single brace");
    const std::string field = text.substr(at + 1, end - at - 1);
    const Value* value = nullptr;
    if (field.empty()) {
      value = &arguments.need(automatic++, "");
    } else if (std::all_of(field.begin(), field.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
               field.size() < 6) {
      value = &arguments.need(static_cast<size_t>(std::stoi(field)), "");
    } else {
      value = &arguments.need(arguments.positional().size(), field.c_str());
    }
    result.append(text_of(*value, budget));
    at = end;
    copied = end + 1;
    budget.check_bytes(result.bytes.size());
  }
  result.append(format.slice(copied, text.size()));
  return result;
}

}  // namespace

Value call_text_method(const Text& text, const CallArguments& arguments, Budget& budget) {
  const std::string& name = arguments.function();
  const std::string& bytes = text.bytes;
  budget.check_bytes(bytes.size());
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Text* characters = arguments.text_or_null(0, "chars");
    budget.spend(bytes.size() / 16 * (characters ? characters->bytes.size() / 64 + 1 : 1));
    const TextRange kept =
        stripped(bytes, characters ? &characters->bytes : nullptr, name != "rstrip", name != "lstrip");
    return text.slice(kept.begin, kept.end);
  }
  if (name == "split" || name == "rsplit") return split_text(text, arguments, name == "rsplit", budget);
  if (name == "splitlines") return lines_of(text, arguments.flag_or(0, "keepends", false));
  if (name == "startswith" || name == "endswith") {
    const auto matches = [&](const Value& value) {
      const Text* part = value.text();
      if (!part) refuse(budget, name + "() needs a string or a tuple of strings, not " + type_name(value));
      return name == "startswith" ? bytes.starts_with(part->bytes) : bytes.ends_with(part->bytes);
    };
    const Value& wanted = arguments.need(0, "prefix");
    if (const List* list = wanted.list()) return std::any_of(list->items.begin(), list->items.end(), matches);
    return matches(wanted);
  }
  if (name == "replace") {
    return replaced(text, arguments.need_text(0, "old"), arguments.need_text(1, "new"),
                    arguments.integer_or(2, "count", -1), budget);
  }
  if (name == "upper") return Text::like(text, upper_case(bytes));
  if (name == "lower") return Text::like(text, lower_case(bytes));
  if (name == "title") return Text::like(text, title_case(bytes));
  if (name == "capitalize") {
    const size_t first = bytes.empty() ? 0 : code_point_length(bytes[0]);
    return Text::like(text, title_case(bytes.substr(0, first)) + lower_case(bytes.substr(first)));
  }
  if (name == "join") {
    Text joined;
    bool first = true;
    for (const Value& item : items_of(arguments.need(0, "iterable"), budget)) {
      if (!item.text()) refuse(budget, std::string("join() needs strings, not ") + type_name(item));
      if (!first) joined.append(text);
      first = false;
      joined.append(*item.text());
      budget.check_bytes(joined.bytes.size() / 64);
    }
    budget.check_bytes(joined.bytes.size());
    return joined;
  }
  if (name == "find" || name == "rfind" || name == "index") {
    const Text part = arguments.need_text(0, "sub");
    const size_t at = name == "rfind" ? find_last_text(bytes, part.bytes) : find_text(bytes, part.bytes, 0);
    if (at == std::string::npos) {
      if (name == "index") refuse(budget, "index(): the string is not there");
      return int64_t{-1};
    }
    return static_cast<int64_t>(character_count(std::string_view(bytes).substr(0, at)));
  }
  if (name == "count") {
    const Text part = arguments.need_text(0, "sub");
    if (part.bytes.empty()) return static_cast<int64_t>(character_count(bytes)) + 1;
    int64_t count = 0;
    for (size_t at = 0; (at = find_text(bytes, part.bytes, at)) != std::string::npos; at += part.bytes.size()) ++count;
    return count;
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const Text part = arguments.need_text(0, "part");
    if (name == "removeprefix")
      return bytes.starts_with(part.bytes) ? text.slice(part.bytes.size(), bytes.size()) : text;
    return bytes.ends_with(part.bytes) ? text.slice(0, bytes.size() - part.bytes.size()) : text;
  }
  if (name == "partition" || name == "rpartition") {
    const Text part = arguments.need_text(0, "sep");
    if (part.bytes.empty()) refuse(budget, "partition() with an empty separator");
    const size_t at = name == "partition" ? find_text(bytes, part.bytes, 0) : find_last_text(bytes, part.bytes);
    List parts{{}, List::Kind::tuple};
    if (at == std::string::npos) {
      parts.items =
          name == "partition" ? std::vector<Value>{text, Text{}, Text{}} : std::vector<Value>{Text{}, Text{}, text};
    } else {
      parts.items = {text.slice(0, at), part, text.slice(at + part.bytes.size(), bytes.size())};
    }
    return parts;
  }
  if (name == "isspace") return all_characters(bytes, is_python_space);
  if (name == "isalpha") return all_characters(bytes, is_letter);
  const auto is_digit = [](char32_t c) {
    return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND;
  };
  if (name == "isdigit") return all_characters(bytes, is_digit);
  if (name == "isalnum") {
    return all_characters(bytes, [](char32_t c) {
      const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
      return is_letter(c) || (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
    });
  }
  if (name == "isupper") return upper_case(bytes) == bytes && lower_case(bytes) != bytes;
  if (name == "islower") return lower_case(bytes) == bytes && upper_case(bytes) != bytes;
  if (name == "zfill") {
    const int64_t width = arguments.integer_or(0, "width", 0);
    const auto missing = width - static_cast<int64_t>(character_count(bytes));
    if (missing <= 0) return text;
    budget.check_bytes(static_cast<size_t>(missing) + bytes.size());
    const size_t sign = !bytes.empty() && (bytes[0] == '-' || bytes[0] == '+') ? 1 : 0;
    return Text::like(text,
                      bytes.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') + bytes.substr(sign));
  }
  if (name == "center" || name == "ljust" || name == "rjust") {
    const Text* fill = arguments.text_or_null(1, "fillchar");
    if (fill && character_count(fill->bytes) != 1) refuse(budget, name + "(): the fill must be one character");
    return padded(text, arguments.integer_or(0, "width", 0),
                  name == "center"  ? Alignment::center
                  : name == "ljust" ? Alignment::left
                                    : Alignment::right,
                  fill ? fill->bytes : " ", budget);
  }
  if (name == "swapcase") {
    std::string swapped;
    for (size_t at = 0; at < bytes.size();) {
      const auto c = static_cast<utf8proc_int32_t>(next_code_point(bytes, at));
      append_code_point(swapped,
                        static_cast<char32_t>(utf8proc_toupper(c) != c ? utf8proc_toupper(c) : utf8proc_tolower(c)));
    }
    return Text::like(text, std::move(swapped));
  }
  if (name == "format") return brace_format(text, arguments, budget);
  refuse(budget, "strings have no method '" + name + "' that templates may call");
}

std::string upper_case(std::string_view text) {
  std::string upper;
  upper.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_code_point(text, at));
    if (c == 0xDF) {
      upper += "SS";
    } else {
      append_code_point(upper, static_cast<char32_t>(utf8proc_toupper(c)));
    }
  }
  return upper;
}

std::string lower_case(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_code_point(text, at));
    append_code_point(lower, static_cast<char32_t>(utf8proc_tolower(c)));
    if (c == 0x130) append_code_point(lower, 0x307);
  }
  return lower;
}

}  // namespace lathe::data::jinja
