// The tokens of a template, one after the other, and what the parsers expect of them. Errors are ConfigErrors with the
// line.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/chat_template/lexer.h"

namespace lathe::data::jinja {

class TokenCursor {
 public:
  TokenCursor(std::vector<Token> tokens, int nesting) : tokens_(std::move(tokens)), nesting_left_(nesting) {}

 protected:
  // One level of nesting, for as long as it lives.
  class Level {
   public:
    explicit Level(TokenCursor& cursor) : cursor_(cursor) {
      if (--cursor_.nesting_left_ < 0) fail(cursor_.current().line, "the template is nested too deeply");
    }
    ~Level() { ++cursor_.nesting_left_; }

   private:
    TokenCursor& cursor_;
  };

  const Token& current() const { return tokens_[at_]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  bool is_symbol(std::string_view text) const { return current().kind == TokenKind::symbol && current().text == text; }
  bool is_name(std::string_view text) const { return current().kind == TokenKind::name && current().text == text; }
  bool is_name_of(std::initializer_list<std::string_view> names) const {
    return current().kind == TokenKind::name && std::find(names.begin(), names.end(), current().text) != names.end();
  }
  bool skip_symbol(std::string_view text) { return is_symbol(text) && (next(), true); }
  bool skip_name(std::string_view text) { return is_name(text) && (next(), true); }
  [[noreturn]] void unexpected(const std::string& wanted) const;
  void expect_symbol(std::string_view text) {
    if (!skip_symbol(text)) unexpected("'" + std::string(text) + "'");
  }
  void expect_name(std::string_view text) {
    if (!skip_name(text)) unexpected("'" + std::string(text) + "'");
  }
  std::string expect_any_name() {
    if (current().kind != TokenKind::name) unexpected("a name");
    return next().text;
  }
  void expect(TokenKind kind, const char* wanted) {
    if (current().kind != kind) unexpected(wanted);
    next();
  }
  // To the token before, for an error that points at it.
  void step_back() {
    if (at_ > 0) --at_;
  }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_left_;
};

}  // namespace lathe::data::jinja
