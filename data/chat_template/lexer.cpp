#include "data/chat_template/lexer.h"

#include <array>
#include <charconv>
#include <cstdlib>

#include "core/error.h"
#include "data/chat_template/text.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {
namespace {

// "\r\n" and "\r" become "\n", and one newline at the end is removed.
std::string normalized_source(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80); }
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_root();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void advance_to(size_t position) {
    for (; at_ < position; ++at_) line_ += source_[at_] == '\n';
  }

  bool looking_at(std::string_view text) const { return source_.compare(at_, text.size(), text) == 0; }

  size_t skip_space(size_t position) const {
    while (position < source_.size()) {
      size_t next = position;
      if (!is_python_space(next_code_point(source_, next))) break;
      position = next;
    }
    return position;
  }

  // Data up to the next tag, then the tag.
  void lex_root() {
    size_t tag = at_;
    while (tag + 1 < source_.size() &&
           !(source_[tag] == '{' && (source_[tag + 1] == '%' || source_[tag + 1] == '{' || source_[tag + 1] == '#')))
      ++tag;
    if (tag + 1 >= source_.size()) {
      add(TokenKind::data, source_.substr(at_));
      advance_to(source_.size());
      return;
    }
    const char type = source_[tag + 1];
    const char sign =
        tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+') ? source_[tag + 2] : 0;
    add_data(std::string_view(source_).substr(at_, tag - at_), sign, type != '{');
    advance_to(tag + 2 + (sign ? 1 : 0));
    if (type == '#') return lex_comment();
    if (type == '%' && lex_raw()) return;
    add(type == '%' ? TokenKind::block_begin : TokenKind::output_begin, "");
    lex_expression(type == '%');
  }

  // Text before a tag: '-' removes all white space at its end. Without it, a block removes the spaces before it on its
  // own line (lstrip_blocks).
  void add_data(std::string_view text, char sign, bool block) {
    if (sign == '-') {
      text = text.substr(0, stripped(text, nullptr, false, true).end);
    } else if (sign != '+' && block) {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if (line_begin > 0 || line_starting_) {
        const std::string_view rest = text.substr(line_begin);
        if (stripped(rest, nullptr, true, false).begin == rest.size()) text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) add(TokenKind::data, std::string(text));
  }

  // Moves past the end of a tag: '-' removes the white space after it, the end of a block one newline (trim_blocks).
  void close(size_t end, char sign, bool block) {
    if (sign == '-') {
      end = skip_space(end);
    } else if (sign != '+' && block && end < source_.size() && source_[end] == '\n') {
      ++end;
    }
    advance_to(end);
    line_starting_ = source_[end - 1] == '\n';
  }

  void lex_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail(line_, "a comment {# is not closed");
    const char before = end > at_ ? source_[end - 1] : 0;
    close(end + 2, before == '-' || before == '+' ? before : 0, true);
  }

  // {% raw %} … {% endraw %}: all between is data. False where the block is another one.
  bool lex_raw() {
    size_t at = skip_space(at_);
    if (source_.compare(at, 3, "raw") != 0) return false;
    at = skip_space(at + 3);
    const bool strips = source_.compare(at, 3, "-%}") == 0;
    if (!strips && source_.compare(at, 2, "%}") != 0) return false;
    const size_t begin = strips ? skip_space(at + 3) : at + 2;
    for (size_t tag = begin; (tag = source_.find("{%", tag)) != std::string::npos; tag += 2) {
      size_t inner = tag + 2;
      const char sign = inner < source_.size() && (source_[inner] == '-' || source_[inner] == '+') ? source_[inner] : 0;
      inner = skip_space(inner + (sign ? 1 : 0));
      if (source_.compare(inner, 6, "endraw") != 0) continue;
      inner = skip_space(inner + 6);
      const char end_sign =
          inner < source_.size() && (source_[inner] == '-' || source_[inner] == '+') ? source_[inner] : 0;
      if (end_sign) ++inner;
      if (source_.compare(inner, 2, "%}") != 0) continue;
      line_starting_ = source_[begin - 1] == '\n';
      add_data(std::string_view(source_).substr(begin, tag - begin), sign, true);
      close(inner + 2, end_sign, true);
      return true;
    }
    fail(line_, "{% raw %} is not closed");
  }

  void lex_expression(bool block) {
    std::string open;  // brackets still open; inside them "}}" and "%}" are operators
    const std::string_view closing = block ? "%}" : "}}";
    while (true) {
      advance_to(skip_space(at_));
      if (at_ >= source_.size()) fail(line_, std::string("a ") + (block ? "{%" : "{{") + " is not closed");
      if (open.empty()) {
        const bool signed_end =
            (source_[at_] == '-' || (block && source_[at_] == '+')) && source_.compare(at_ + 1, 2, closing) == 0;
        if (signed_end || looking_at(closing)) {
          add(block ? TokenKind::block_end : TokenKind::output_end, "");
          return close(at_ + (signed_end ? 3 : 2), signed_end ? source_[at_] : 0, block);
        }
      }
      const char c = source_[at_];
      if (is_digit(c)) {
        lex_number();
      } else if (is_name_start(c)) {
        size_t end = at_;
        while (end < source_.size() && is_name_part(source_[end])) ++end;
        add(TokenKind::name, source_.substr(at_, end - at_));
        advance_to(end);
      } else if (c == '\'' || c == '"') {
        lex_string(c);
      } else {
        lex_symbol(open);
      }
    }
  }

  void lex_symbol(std::string& open) {
    static constexpr std::array<std::string_view, 26> symbols = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                 "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                 ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view symbol : symbols) {
      if (!looking_at(symbol)) continue;
      const char c = symbol[0];
      if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
      if (c == ')' || c == ']' || c == '}') {
        if (open.empty() || open.back() != c) fail(line_, std::string("unexpected '") + c + "'");
        open.pop_back();
      }
      add(TokenKind::symbol, std::string(symbol));
      return advance_to(at_ + symbol.size());
    }
    fail(line_, "unexpected character '" + source_.substr(at_, code_point_length(source_[at_])) + "'");
  }

  void lex_number() {
    size_t end = at_;
    bool real = false;
    std::string digits;
    const bool hexadecimal = looking_at("0x") || looking_at("0X");
    if (hexadecimal) {
      for (end += 2;
           end < source_.size() && (std::isxdigit(static_cast<unsigned char>(source_[end])) || source_[end] == '_');
           ++end) {
        if (source_[end] != '_') digits += source_[end];
      }
    } else {
      const auto take_digits = [&] {
        for (; end < source_.size() && (is_digit(source_[end]) || source_[end] == '_'); ++end) {
          if (source_[end] != '_') digits += source_[end];
        }
      };
      take_digits();
      const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';  // a.0.1: an index, not 0.1
      if (!after_dot && end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
        real = true;
        digits += source_[end++];
        take_digits();
      }
      if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
        const size_t sign = end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-') ? 1 : 0;
        if (end + 1 + sign < source_.size() && is_digit(source_[end + 1 + sign])) {
          real = true;
          digits.append(source_, end, 1 + sign);
          end += 1 + sign;
          take_digits();
        }
      }
    }
    Token token{real ? TokenKind::real : TokenKind::integer, digits, line_};
    if (real) {
      token.real = std::strtod(digits.c_str(), nullptr);
    } else {
      const auto [last, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), token.integer, hexadecimal ? 16 : 10);
      if (error != std::errc() || last != digits.data() + digits.size())
        fail(line_, "the number " + digits + " is out of range");
    }
    tokens_.push_back(std::move(token));
    advance_to(end);
  }

  void lex_string(char quote) {
    std::string value;
    size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] != '\\') {
        value += source_[i];
        continue;
      }
      if (++i >= source_.size()) break;
      i = unescape(i, value);
    }
    if (i >= source_.size()) fail(line_, "a string is not closed");
    add(TokenKind::string, std::move(value));
    advance_to(i + 1);
  }

  // Python's escapes; source_[i] follows the backslash. Returns the last character taken.
  size_t unescape(size_t i, std::string& value) {
    static constexpr std::string_view names = "\\'\"abfnrtv", values = "\\'\"\a\b\f\n\r\t\v";
    const char c = source_[i];
    if (c == '\n') return i;
    if (const size_t simple = names.find(c); simple != std::string_view::npos) {
      value += values[simple];
      return i;
    }
    if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      size_t end = i;
      for (; end < i + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7'; ++end)
        code = code * 8 + (source_[end] - '0');
      append_code_point(value, code);
      return end - 1;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      value += '\\';
      value += c;
      return i;
    }
    uint32_t code = 0;
    const char* first = source_.data() + i + 1;
    const bool enough = i + digits < source_.size();
    const auto [last, error] = std::from_chars(first, enough ? first + digits : first, code, 16);
    if (error != std::errc() || last != first + digits || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      fail(line_, std::string("the escape \\") + c + " needs " + std::to_string(digits) +
                      " hexadecimal digits of a character");
    }
    append_code_point(value, code);
    return i + digits;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last tag ended with a newline
  std::vector<Token> tokens_;
};

}  // namespace

void fail(int line, const std::string& reason) {
  throw ConfigError("chat template", (line > 0 ? "line " + std::to_string(line) + ": " : "") + reason);
}

std::vector<Token> tokenize_template(std::string_view source) {
  return Lexer(normalized_source(is_valid_utf8(source) ? std::string(source) : replace_invalid_utf8(source))).run();
}

}  // namespace lathe::data::jinja
