// A template's tokens, with white space handled as transformers sets Jinja up: trim_blocks, lstrip_blocks, no
// trailing newline.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::data::jinja {

enum class TokenKind {
  data,
  output_begin,
  output_end,
  block_begin,
  block_end,
  name,
  integer,
  real,
  string,
  symbol,
  end
};

struct Token {
  TokenKind kind;
  std::string text;
  int line = 0;
  uint64_t integer = 0;
  double real = 0;
};

// Throws ConfigError with the line.
std::vector<Token> tokenize_template(std::string_view source);

// A ConfigError whose key is "chat template", with the line where one is known.
[[noreturn]] void fail(int line, const std::string& reason);

}  // namespace lathe::data::jinja
