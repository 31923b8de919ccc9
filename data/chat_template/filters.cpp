// "x | …". map, select and their kin are in sequence_filters.cpp.
#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdlib>

#include "data/chat_template/builtins.h"
#include "data/chat_template/sequence_filters.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {
namespace {

JsonStyle json_style(const CallArguments& arguments, Budget& budget) {
  JsonStyle style;
  style.ensure_ascii = arguments.flag_or(0, "ensure_ascii", false);
  if (const Value* indent = arguments.find(1, "indent"); indent && !indent->is_none()) {
    if (const Text* text = indent->text()) {
      style.indent = text->bytes;
    } else if (const auto width = indent->integer()) {
      style.indent = std::string(static_cast<size_t>(std::clamp<int64_t>(*width, 0, 64)), ' ');
    } else {
      refuse(budget, "tojson: indent must be a number or a string");
    }
    style.item_separator = ",";
  }
  if (const Value* separators = arguments.find(2, "separators"); separators && !separators->is_none()) {
    const std::vector<Value> both = items_of(*separators, budget);
    if (both.size() != 2 || !both[0].text() || !both[1].text())
      refuse(budget, "tojson: separators must be two strings");
    style.item_separator = both[0].text()->bytes;
    style.key_separator = both[1].text()->bytes;
  }
  style.sort_keys = arguments.flag_or(3, "sort_keys", false);
  return style;
}

Text escaped_html(const Text& text) {
  Text result;
  size_t done = 0;
  for (size_t i = 0; i < text.bytes.size(); ++i) {
    const char c = text.bytes[i];
    const char* entity = c == '&'    ? "&amp;"
                         : c == '<'  ? "&lt;"
                         : c == '>'  ? "&gt;"
                         : c == '\'' ? "&#39;"
                         : c == '"'  ? "&#34;"
                                     : nullptr;
    if (!entity) continue;
    result.append(text.slice(done, i));
    result.append(Text::like(text, entity));
    done = i + 1;
  }
  result.append(text.slice(done, text.bytes.size()));
  return result;
}

Text indented(const Text& text, const CallArguments& arguments, Budget& budget) {
  Text indentation = Text::own("    ");
  if (const Value* width = arguments.find(0, "width")) {
    if (width->text()) {
      indentation = *width->text();
    } else {
      indentation = Text::own(
          std::string(static_cast<size_t>(std::clamp<int64_t>(arguments.integer_or(0, "width", 4), 0, 1000)), ' '));
    }
  }
  const bool first = arguments.flag_or(1, "first", false), blank = arguments.flag_or(2, "blank", false);
  // Jinja splits as splitlines() does and joins with "\n"; a final newline stays.
  const CallArguments no_arguments("splitlines", {}, {}, budget);
  Text with_end = text;
  with_end.append(Text::own("\n"));
  const Value lines = call_method(with_end, no_arguments, budget);
  Text result;
  bool at_first = true;
  for (const Value& line : lines.list()->items) {
    const Text& content = *line.text();
    if (!at_first) result.append(Text::own("\n"));
    if (at_first ? first : blank || !content.bytes.empty()) result.append(indentation);
    result.append(content);
    at_first = false;
    budget.check_bytes(result.bytes.size() / 64);
  }
  return result;
}

Value to_integer(const Value& value, const CallArguments& arguments, Budget& budget) {
  const Value otherwise = arguments.value_or(0, "default", int64_t{0});
  if (value.exact_integer()) return std::holds_alternative<bool>(value.variant) ? Value(*value.integer()) : value;
  const int base = static_cast<int>(std::clamp<int64_t>(arguments.integer_or(1, "base", 10), 2, 36));
  double real = 0;
  if (const Text* text = value.text()) {
    const TextRange kept = stripped(text->bytes, nullptr, true, true);
    const std::string digits = text->bytes.substr(kept.begin, kept.end - kept.begin);
    char* end = nullptr;
    errno = 0;
    const long long whole = std::strtoll(digits.c_str(), &end, base);
    if (!digits.empty() && *end == 0) {
      if (errno == ERANGE) {
        const unsigned long long large = std::strtoull(digits.c_str(), &end, base);
        if (digits[0] == '-' || large == ULLONG_MAX)
          refuse(budget, "int: the number " + digits.substr(0, 60) + " is out of range");
        return LargeInteger{large};
      }
      return static_cast<int64_t>(whole);
    }
    real = std::strtod(digits.c_str(), &end);
    if (digits.empty() || *end != 0) return otherwise;
  } else if (const auto number = value.number()) {
    real = *number;
  } else {
    return otherwise;
  }
  if (!(std::fabs(real) < 9.2e18)) return otherwise;
  return static_cast<int64_t>(real);
}

Value to_real(const Value& value, const CallArguments& arguments) {
  if (const auto number = value.number()) return *number;
  if (const Text* text = value.text()) {
    const TextRange kept = stripped(text->bytes, nullptr, true, true);
    const std::string digits = text->bytes.substr(kept.begin, kept.end - kept.begin);
    char* end = nullptr;
    const double real = std::strtod(digits.c_str(), &end);
    if (!digits.empty() && *end == 0) return real;
  }
  return arguments.value_or(0, "default", 0.0);
}

Value rounded(const Value& value, const CallArguments& arguments, Budget& budget) {
  const auto number = value.number();
  if (!number) refuse(budget, std::string("round needs a number, not ") + type_name(value));
  const auto precision = std::clamp<int64_t>(arguments.integer_or(0, "precision", 0), -300, 300);
  const Text* method = arguments.text_or_null(1, "method");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  // Python rounds an integer to itself, and keeps it one.
  if (value.exact_integer() && precision >= 0 && (!method || method->bytes == "common")) return value;
  if (method && method->bytes == "ceil") return std::ceil(*number * scale) / scale;
  if (method && method->bytes == "floor") return std::floor(*number * scale) / scale;
  if (method && method->bytes != "common") refuse(budget, "round: the method must be common, ceil or floor");
  if (precision < 0 || precision > 17) return std::nearbyint(*number * scale) / scale;
  // As Python: the decimal with that many places that is nearest to the exact value.
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), *number);
  return std::strtod(buffer, nullptr);
}

// truncate(length=255, killwords=False, end="...", leeway=5)
Text truncated(const Text& text, const CallArguments& arguments, Budget& budget) {
  const int64_t length = arguments.integer_or(0, "length", 255), leeway = arguments.integer_or(3, "leeway", 5);
  const Text end = text_of(arguments.value_or(2, "end", Text::own("...")), budget);
  const auto end_length = static_cast<int64_t>(character_count(end.bytes));
  if (length < end_length) refuse(budget, "truncate: the length must be at least that of the end");
  if (leeway < 0) refuse(budget, "truncate: the leeway must be 0 or more");
  if (static_cast<int64_t>(character_count(text.bytes)) <= length + leeway) return text;
  Text kept = text.slice(0, byte_of_character(text.bytes, static_cast<size_t>(length - end_length)));
  if (!arguments.flag_or(1, "killwords", false)) {
    const size_t space = kept.bytes.rfind(' ');
    if (space != std::string::npos) kept = kept.slice(0, space);
  }
  kept.append(end);
  return kept;
}

// urllib's quote with "/" left alone.
std::string percent_encoded(std::string_view text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && (std::isalnum(byte) || std::string_view("_.-~/").find(c) != std::string_view::npos)) {
      encoded += c;
    } else {
      encoded += {'%', digits[byte >> 4], digits[byte & 15]};
    }
  }
  return encoded;
}

// Jinja's title: words begin after white space and -([{<.
std::string title_words(std::string_view text) {
  std::string result;
  size_t begin = 0;
  const auto add_word = [&](size_t end) {
    if (end == begin) return;
    const size_t first = code_point_length(text[begin]);
    result += upper_case(text.substr(begin, first)) + lower_case(text.substr(begin + first, end - begin - first));
  };
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_code_point(text, at);
    const bool separates = is_python_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    if (!separates) continue;
    add_word(start);
    result += text.substr(start, at - start);
    begin = at;
  }
  add_word(text.size());
  return result;
}

}  // namespace

Value apply_filter(const std::string& name, const Value& value, const CallArguments& arguments, Budget& budget) {
  budget.spend(1);
  if (auto result = apply_sequence_filter(name, value, arguments, budget)) return *result;
  if (name == "default" || name == "d") {
    const bool falsy_too = arguments.flag_or(1, "boolean", false);
    return value.is_undefined() || (falsy_too && !truthy(value)) ? arguments.value_or(0, "default_value", Text{})
                                                                 : value;
  }
  if (name == "length" || name == "count") return length_of(value, budget);
  if (name == "tojson") return json_of(value, json_style(arguments, budget), budget);
  if (name == "int") return to_integer(value, arguments, budget);
  if (name == "float") return to_real(value, arguments);
  if (name == "round") return rounded(value, arguments, budget);
  if (name == "abs") {
    if (const auto whole = value.integer()) {
      if (*whole == INT64_MIN) refuse(budget, "abs: an integer is out of range");
      return *whole < 0 ? -*whole : *whole;
    }
    if (value.exact_integer()) return value;
    if (const auto number = value.number()) return std::fabs(*number);
    refuse(budget, std::string("abs needs a number, not ") + type_name(value));
  }
  // All other filters work on text.
  const Text text = text_of(value, budget);
  budget.check_bytes(text.bytes.size());
  if (name == "string" || name == "safe") return text;
  if (name == "trim") {
    const Text* characters = arguments.text_or_null(0, "chars");
    const TextRange kept = stripped(text.bytes, characters ? &characters->bytes : nullptr, true, true);
    return text.slice(kept.begin, kept.end);
  }
  if (name == "upper") return Text::like(text, upper_case(text.bytes));
  if (name == "lower") return Text::like(text, lower_case(text.bytes));
  if (name == "title") return Text::like(text, title_words(text.bytes));
  if (name == "capitalize") return call_method(text, CallArguments("capitalize", {}, {}, budget), budget);
  if (name == "replace") {
    return replaced(text, text_of(arguments.need(0, "old"), budget), text_of(arguments.need(1, "new"), budget),
                    arguments.integer_or(2, "count", -1), budget);
  }
  if (name == "indent") return indented(text, arguments, budget);
  if (name == "truncate") return truncated(text, arguments, budget);
  if (name == "center") return padded(text, arguments.integer_or(0, "width", 80), Alignment::center, " ", budget);
  if (name == "urlencode") return Text::like(text, percent_encoded(text.bytes));
  if (name == "escape" || name == "e" || name == "forceescape") return escaped_html(text);
  if (name == "format") return percent_format(text, List{arguments.positional(), List::Kind::tuple}, budget);
  if (name == "wordcount")
    return static_cast<int64_t>(call_method(text, CallArguments("split", {}, {}, budget), budget).list()->items.size());
  refuse(budget, "there is no filter '" + name + "'");
}

}  // namespace lathe::data::jinja
