// Values as text: str(), repr(), JSON in and out.
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/json_value.h"
#include "data/chat_template/lexer.h"
#include "data/chat_template/value.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {
namespace {

constexpr int max_message_depth = 200;

bool printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    default: return true;
  }
}

void append_hexadecimal(std::string& text, const char* prefix, char32_t value, int digits) {
  static constexpr char alphabet[] = "0123456789abcdef";
  text += prefix;
  for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) text += alphabet[(value >> shift) & 15];
}

std::string string_representation(std::string_view text) {
  const bool double_quotes = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string result(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(text, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      result += '\\';
      result += static_cast<char>(c);
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\r') {
      result += "\\r";
    } else if (c == '\t') {
      result += "\\t";
    } else if (printable(c)) {
      result += text.substr(begin, at - begin);
    } else if (c < 0x100) {
      append_hexadecimal(result, "\\x", c, 2);
    } else if (c < 0x10000) {
      append_hexadecimal(result, "\\u", c, 4);
    } else {
      append_hexadecimal(result, "\\U", c, 8);
    }
  }
  return result + quote;
}

void append_json_string(std::string& out, std::string_view text, bool ensure_ascii) {
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_code_point(text, at);
    static constexpr std::string_view escaped = "\"\\\n\r\t\f\b", letters = "\"\\nrtfb";
    const size_t simple = c < 0x80 ? escaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (simple != std::string_view::npos) {
      out += '\\';
      out += letters[simple];
    } else if (c < 0x20) {
      append_hexadecimal(out, "\\u", c, 4);
    } else if (c >= 0x7F && ensure_ascii && c > 0x7F) {
      if (c >= 0x10000) {
        append_hexadecimal(out, "\\u", 0xD800 + ((c - 0x10000) >> 10), 4);
        append_hexadecimal(out, "\\u", 0xDC00 + ((c - 0x10000) & 0x3FF), 4);
      } else {
        append_hexadecimal(out, "\\u", c, 4);
      }
    } else {
      out += text.substr(begin, at - begin);
    }
  }
  out += '"';
}

std::string integer_text(const Value& value) {
  const auto* large = std::get_if<LargeInteger>(&value.variant);
  return large ? std::to_string(large->value) : std::to_string(*value.integer());
}

// Writes one value as Python's json.dumps. If any part came from messages, all of the text counts as inserted.
class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}
  std::string out;
  bool foreign = false;

  void write(const Value& value, int level) {
    budget_.spend(1);
    if (const Text* text = value.text()) {
      foreign |= !text->inserted.empty();
      append_json_string(out, text->bytes, style_.ensure_ascii);
    } else if (value.is_none()) {
      out += "null";
    } else if (const bool* flag = std::get_if<bool>(&value.variant)) {
      out += *flag ? "true" : "false";
    } else if (value.exact_integer()) {
      out += integer_text(value);
    } else if (const double* real = std::get_if<double>(&value.variant)) {
      out += std::isnan(*real)   ? "NaN"
             : std::isinf(*real) ? (*real > 0 ? "Infinity" : "-Infinity")
                                 : real_representation(*real);
    } else if (const List* list = value.list(); list && list->kind != List::Kind::generator) {
      write_items(list->items.size(), '[', ']', level, [&](size_t i) { write(list->items[i], level + 1); });
    } else if (const Dict* dict = value.dict()) {
      write_dict(*dict, level);
    } else {
      refuse(budget_, std::string("a value of type ") + type_name(value) + " cannot be written as JSON");
    }
    budget_.check_bytes(out.size() / 64);
  }

 private:
  template <class WriteItem>
  void write_items(size_t count, char open, char close, int level, WriteItem write_item) {
    out += open;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out += style_.item_separator;
      new_line(level + 1);
      write_item(i);
    }
    if (count > 0) new_line(level);
    out += close;
  }

  void new_line(int level) {
    if (!style_.indent) return;
    out += '\n';
    for (int i = 0; i < level; ++i) out += *style_.indent;
  }

  void write_dict(const Dict& dict, int level) {
    std::vector<std::pair<std::string, const Value*>> entries;
    for (const auto& [key, value] : dict.entries) {
      std::string name;
      if (const Text* text = key.text()) {
        foreign |= !text->inserted.empty();
        name = text->bytes;
      } else if (key.is_none()) {
        name = "null";
      } else if (const bool* flag = std::get_if<bool>(&key.variant)) {
        name = *flag ? "true" : "false";
      } else if (key.number()) {
        name = representation_of(key, budget_);
      } else {
        refuse(budget_, "a key of a dict cannot be written as JSON");
      }
      entries.emplace_back(std::move(name), &value);
    }
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    write_items(entries.size(), '{', '}', level, [&](size_t i) {
      append_json_string(out, entries[i].first, style_.ensure_ascii);
      out += style_.key_separator;
      write(*entries[i].second, level + 1);
    });
  }

  const JsonStyle& style_;
  Budget& budget_;
};

}  // namespace

std::string real_representation(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string text(buffer, scientific.ptr);
  const int exponent = std::atoi(text.c_str() + text.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return text;  // Python, too, writes two digits of exponent at least
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  const std::string plain(buffer, fixed.ptr);
  return plain.find('.') == std::string::npos ? plain + ".0" : plain;
}

std::string representation_of(const Value& value, Budget& budget) {
  budget.spend(1);
  if (const Text* text = value.text()) {
    budget.check_bytes(text->bytes.size());
    return string_representation(text->bytes);
  }
  if (value.is_none()) return "None";
  if (value.is_undefined()) return "Undefined";
  if (const bool* flag = std::get_if<bool>(&value.variant)) return *flag ? "True" : "False";
  if (value.exact_integer()) return integer_text(value);
  if (const double* real = std::get_if<double>(&value.variant)) return real_representation(*real);
  std::string result;
  const auto join = [&](const auto& items, auto append) {
    bool first = true;
    for (const auto& item : items) {
      if (!first) result += ", ";
      first = false;
      append(item);
      budget.check_bytes(result.size() / 64);
    }
  };
  if (const List* list = value.list(); list && list->kind != List::Kind::generator) {
    const bool tuple = list->kind == List::Kind::tuple;
    result += tuple ? '(' : '[';
    join(list->items, [&](const Value& item) { result += representation_of(item, budget); });
    if (tuple && list->items.size() == 1) result += ',';
    return result + (tuple ? ')' : ']');
  }
  const auto append_entry = [&](const auto& entry) {
    if constexpr (std::is_same_v<std::decay_t<decltype(entry.first)>, std::string>) {
      result += string_representation(entry.first);
    } else {
      result += representation_of(entry.first, budget);
    }
    result += ": " + representation_of(entry.second, budget);
  };
  if (const Dict* dict = value.dict()) {
    result += '{';
    join(dict->entries, append_entry);
    return result + '}';
  }
  if (const Namespace* space = value.space(); space && space->kind == Namespace::Kind::plain) {
    result += "<Namespace {";
    join(space->entries, append_entry);
    return result + "}>";
  }
  refuse(budget, std::string("a value of type ") + type_name(value) + " has no text");
}

namespace {

// Whether any string in the value came from outside.
bool is_foreign(const Value& value) {
  if (const Text* text = value.text()) return !text->inserted.empty();
  if (const List* list = value.list()) return std::any_of(list->items.begin(), list->items.end(), is_foreign);
  if (const Dict* dict = value.dict()) {
    return std::any_of(dict->entries.begin(), dict->entries.end(),
                       [](const auto& entry) { return is_foreign(entry.first) || is_foreign(entry.second); });
  }
  if (const Namespace* space = value.space()) {
    return std::any_of(space->entries.begin(), space->entries.end(),
                       [](const auto& entry) { return is_foreign(entry.second); });
  }
  return false;
}

}  // namespace

Text text_of(const Value& value, Budget& budget) {
  if (const Text* text = value.text()) return *text;
  if (value.is_undefined()) return {};
  std::string bytes = representation_of(value, budget);
  return is_foreign(value) ? Text::foreign(std::move(bytes)) : Text::own(std::move(bytes));
}

Text json_of(const Value& value, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  writer.write(value, 0);
  budget.check_bytes(writer.out.size());
  return writer.foreign ? Text::foreign(std::move(writer.out)) : Text::own(std::move(writer.out));
}

namespace {

Value value_at_depth(const nlohmann::ordered_json& json, Budget& budget, int depth) {
  budget.spend(1);
  if (depth > max_message_depth) fail(0, "the messages are nested too deeply");
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::null: return None{};
    case nlohmann::ordered_json::value_t::boolean: return json.get<bool>();
    case nlohmann::ordered_json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return LargeInteger{json.get<uint64_t>()};
      return json.get<int64_t>();
    case nlohmann::ordered_json::value_t::number_integer: return json.get<int64_t>();
    case nlohmann::ordered_json::value_t::number_float: return json.get<double>();
    case nlohmann::ordered_json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      return Text::foreign(is_valid_utf8(text) ? text : replace_invalid_utf8(text));
    }
    case nlohmann::ordered_json::value_t::array: {
      List list;
      for (const auto& item : json) list.items.push_back(value_at_depth(item, budget, depth + 1));
      return list;
    }
    case nlohmann::ordered_json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) {
        dict.entries.emplace_back(Text::foreign(is_valid_utf8(key) ? key : replace_invalid_utf8(key)),
                                  value_at_depth(item, budget, depth + 1));
      }
      return dict;
    }
    default: fail(0, "the messages hold a value that JSON does not know");
  }
}

}  // namespace

Value value_of(const nlohmann::ordered_json& json, Budget& budget) { return value_at_depth(json, budget, 0); }

Value messages_value(const nlohmann::ordered_json& messages, Budget& budget) {
  if (!messages.is_array()) fail(0, "messages must be a list of {\"role\", \"content\"}");
  // Templates write "<|" + role + "|>": that must be a control token, and can be one only for a known role.
  static constexpr std::string_view roles[] = {"system",   "user",        "assistant", "tool",        "developer",
                                               "function", "model",       "ipython",   "observation", "human",
                                               "gpt",      "environment", "context",   "documents",   "tool_response"};
  List list;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    if (!message.is_object()) fail(0, "message " + std::to_string(i) + " is no object with \"role\" and \"content\"");
    const Value converted = value_of(message, budget);
    Dict dict = *converted.dict();
    for (auto& [key, value] : dict.entries) {
      const Text* text = value.text();
      if (!text || key.text()->bytes != "role") continue;
      if (std::find(std::begin(roles), std::end(roles), text->bytes) != std::end(roles)) value = Text::own(text->bytes);
    }
    // A model's reasoning goes by several names; where one is given, the others are filled in as transformers does.
    for (const std::string_view name : {"reasoning_content", "thinking", "reasoning"}) {
      const Value* reasoning = dict.find(name);
      if (!reasoning || reasoning->is_none()) continue;
      const Value copy = *reasoning;
      if (!dict.find(std::string_view("thinking")))
        dict.entries.emplace(dict.entries.begin(), Text::own("thinking"), copy);
      dict.set(Text::own("reasoning_content"), copy);
      break;
    }
    list.items.emplace_back(std::move(dict));
  }
  return list;
}

}  // namespace lathe::data::jinja
