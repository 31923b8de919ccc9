#include "data/chat_template/token_cursor.h"

#include <array>

namespace lathe::data::jinja {

void TokenCursor::unexpected(const std::string& wanted) const {
  static constexpr std::array<const char*, 11> kinds = {"text",
                                                        "'{{'",
                                                        "'}}'",
                                                        "'{%'",
                                                        "'%}'",
                                                        "the name",
                                                        "the number",
                                                        "a number",
                                                        "a string",
                                                        "",
                                                        "the end of the template"};
  const Token& token = current();
  const std::string found =
      std::string(kinds[static_cast<size_t>(token.kind)]) +
      (token.kind == TokenKind::name || token.kind == TokenKind::symbol || token.kind == TokenKind::integer
           ? " '" + token.text + "'"
           : "");
  fail(token.line, "expected " + wanted + ", found " + found);
}

}  // namespace lathe::data::jinja
