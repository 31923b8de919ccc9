// The expressions of a template, by recursive descent: a function for each strength of binding, weakest first.
#pragma once

#include "data/chat_template/syntax.h"
#include "data/chat_template/token_cursor.h"

namespace lathe::data::jinja {

class ExpressionParser : public TokenCursor {
 public:
  using TokenCursor::TokenCursor;

 protected:
  // `with_conditional`: its parts may be `a if b else c`.
  ExpressionPtr parse_tuple(bool with_conditional);
  ExpressionPtr parse_expression();
  ExpressionPtr parse_unary(bool with_filter);
  // One or more filters. `inline_start`: the first has no '|' before it ({% filter upper %}).
  ExpressionPtr parse_filter(ExpressionPtr value, bool inline_start);

 private:
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_primary();
  ExpressionPtr parse_parenthesis(int line);
  ExpressionPtr parse_items(ExpressionKind kind, const char* closing, int line);
  ExpressionPtr parse_postfix(ExpressionPtr value);
  ExpressionPtr parse_subscript(ExpressionPtr value, int line);
  Arguments parse_arguments();
  ExpressionPtr parse_call(ExpressionPtr function);
  ExpressionPtr parse_test(ExpressionPtr value);
};

}  // namespace lathe::data::jinja
