#include "data/chat_template/expression_parser.h"

#include <array>
#include <optional>

namespace lathe::data::jinja {
namespace {

using Kind = ExpressionKind;

ExpressionPtr make(Kind kind, int line) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  return expression;
}

template <class... Operands>
ExpressionPtr make(Kind kind, int line, Operands... operands) {
  auto expression = make(kind, line);
  (expression->operands.push_back(std::move(operands)), ...);
  return expression;
}

ExpressionPtr with_text(ExpressionPtr expression, const std::string& text) {
  expression->text = text;
  return expression;
}

// a + b + c + … becomes a tree as deep as the chain is long, and evaluating it recurses: its length is limited.
ExpressionPtr chain(Kind kind, int line, ExpressionPtr left, ExpressionPtr right, int& links) {
  if (++links > 500) fail(line, "an expression has too many operators in a row");
  return make(kind, line, std::move(left), std::move(right));
}

}  // namespace

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional) {
  const int line = current().line;
  ExpressionPtr first = with_conditional ? parse_expression() : parse_or();
  if (!is_symbol(",")) return first;
  auto tuple = make(Kind::tuple, line, std::move(first));
  while (skip_symbol(",")) {
    if (current().kind == TokenKind::output_end || current().kind == TokenKind::block_end || is_symbol(")")) break;
    tuple->operands.push_back(with_conditional ? parse_expression() : parse_or());
  }
  return tuple;
}

ExpressionPtr ExpressionParser::parse_expression() {
  const Level level(*this);
  const int line = current().line;
  ExpressionPtr value = parse_or();
  while (skip_name("if")) {
    ExpressionPtr condition = parse_or();
    ExpressionPtr otherwise = skip_name("else") ? parse_expression() : nullptr;
    value = make(Kind::conditional, line, std::move(value), std::move(condition), std::move(otherwise));
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_or() {
  const int line = current().line;
  ExpressionPtr left = parse_and();
  for (int links = 0; skip_name("or");) left = chain(Kind::logical_or, line, std::move(left), parse_and(), links);
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  const int line = current().line;
  ExpressionPtr left = parse_not();
  for (int links = 0; skip_name("and");) left = chain(Kind::logical_and, line, std::move(left), parse_not(), links);
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  const Level level(*this);
  const int line = current().line;
  if (skip_name("not")) return make(Kind::logical_not, line, parse_not());
  return parse_compare();
}

ExpressionPtr ExpressionParser::parse_compare() {
  static constexpr std::array<std::pair<std::string_view, Comparison>, 6> operators = {
      {{"==", Comparison::equal},
       {"!=", Comparison::not_equal},
       {"<", Comparison::less},
       {"<=", Comparison::less_equal},
       {">", Comparison::greater},
       {">=", Comparison::greater_equal}}};
  const int line = current().line;
  ExpressionPtr left = parse_sum();
  ExpressionPtr comparison;
  while (true) {
    std::optional<Comparison> found;
    for (const auto& [symbol, value] : operators) {
      if (is_symbol(symbol)) found = value;
    }
    if (found) {
      next();
    } else if (skip_name("in")) {
      found = Comparison::in;
    } else if (is_name("not") && ahead().kind == TokenKind::name && ahead().text == "in") {
      next();
      next();
      found = Comparison::not_in;
    } else {
      return comparison ? std::move(comparison) : std::move(left);
    }
    if (!comparison) comparison = make(Kind::compare, line, std::move(left));
    comparison->comparisons.push_back(*found);
    comparison->operands.push_back(parse_sum());
  }
}

ExpressionPtr ExpressionParser::parse_sum() {
  const int line = current().line;
  ExpressionPtr left = parse_concatenation();
  for (int links = 0; is_symbol("+") || is_symbol("-");) {
    const Kind kind = next().text == "+" ? Kind::add : Kind::subtract;
    left = chain(kind, line, std::move(left), parse_concatenation(), links);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concatenation() {
  const int line = current().line;
  ExpressionPtr first = parse_product();
  if (!is_symbol("~")) return first;
  auto all = make(Kind::concatenate, line, std::move(first));
  while (skip_symbol("~")) all->operands.push_back(parse_product());
  return all;
}

ExpressionPtr ExpressionParser::parse_product() {
  const int line = current().line;
  ExpressionPtr left = parse_power();
  for (int links = 0; is_symbol("*") || is_symbol("/") || is_symbol("//") || is_symbol("%");) {
    const std::string symbol = next().text;
    const Kind kind = symbol == "*"    ? Kind::multiply
                      : symbol == "/"  ? Kind::divide
                      : symbol == "//" ? Kind::floor_divide
                                       : Kind::modulo;
    left = chain(kind, line, std::move(left), parse_power(), links);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_power() {
  const int line = current().line;
  ExpressionPtr left = parse_unary(true);
  for (int links = 0; skip_symbol("**");) left = chain(Kind::power, line, std::move(left), parse_unary(true), links);
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filter) {
  const Level level(*this);
  const int line = current().line;
  ExpressionPtr value;
  if (skip_symbol("-")) {
    value = make(Kind::negate, line, parse_unary(false));
  } else if (skip_symbol("+")) {
    value = make(Kind::plus, line, parse_unary(false));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  if (!with_filter) return value;
  for (int links = 0;;) {
    if (++links > 500) fail(line, "an expression has too many filters in a row");
    if (is_symbol("|")) {
      value = parse_filter(std::move(value), false);
    } else if (is_name("is")) {
      value = parse_test(std::move(value));
    } else if (is_symbol("(")) {
      value = parse_call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Token& token = next();
  switch (token.kind) {
    case TokenKind::name:
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        auto constant = make(Kind::boolean, token.line);
        constant->integer = token.text[0] == 't' || token.text[0] == 'T';
        return constant;
      }
      if (token.text == "none" || token.text == "None") return make(Kind::none, token.line);
      return with_text(make(Kind::name, token.line), token.text);
    case TokenKind::string: {
      auto constant = with_text(make(Kind::string, token.line), token.text);
      while (current().kind == TokenKind::string) constant->text += next().text;
      return constant;
    }
    case TokenKind::integer: {
      auto constant = make(Kind::integer, token.line);
      constant->integer = token.integer;
      return constant;
    }
    case TokenKind::real: {
      auto constant = make(Kind::real, token.line);
      constant->real = token.real;
      return constant;
    }
    case TokenKind::symbol:
      if (token.text == "(") return parse_parenthesis(token.line);
      if (token.text == "[") return parse_items(Kind::list, "]", token.line);
      if (token.text == "{") return parse_items(Kind::dict, "}", token.line);
      [[fallthrough]];
    default:
      if (token.kind != TokenKind::end) step_back();
      unexpected("an expression");
  }
}

ExpressionPtr ExpressionParser::parse_parenthesis(int line) {
  if (skip_symbol(")")) return make(Kind::tuple, line);
  ExpressionPtr value = parse_tuple(true);
  expect_symbol(")");
  return value;
}

ExpressionPtr ExpressionParser::parse_items(Kind kind, const char* closing, int line) {
  auto all = make(kind, line);
  while (!is_symbol(closing)) {
    if (!all->operands.empty()) {
      expect_symbol(",");
      if (is_symbol(closing)) break;
    }
    all->operands.push_back(parse_expression());
    if (kind == Kind::dict) {
      expect_symbol(":");
      all->operands.push_back(parse_expression());
    }
  }
  expect_symbol(closing);
  return all;
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr value) {
  for (int links = 0;;) {
    if (++links > 500) fail(current().line, "an expression has too many subscripts in a row");
    const int line = current().line;
    if (skip_symbol(".")) {
      if (current().kind == TokenKind::integer) {
        auto index = make(Kind::integer, line);
        index->integer = next().integer;
        value = make(Kind::item, line, std::move(value), std::move(index));
      } else {
        value = with_text(make(Kind::attribute, line, std::move(value)), expect_any_name());
      }
    } else if (skip_symbol("[")) {
      value = parse_subscript(std::move(value), line);
    } else if (is_symbol("(")) {
      value = parse_call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr value, int line) {
  std::array<ExpressionPtr, 3> parts;
  size_t colons = 0;
  while (!is_symbol("]")) {
    if (skip_symbol(":")) {
      if (++colons > 2) fail(line, "a slice has too many colons");
      continue;
    }
    if (parts[colons]) unexpected("']'");
    parts[colons] = parse_expression();
  }
  expect_symbol("]");
  if (colons == 0) {
    if (!parts[0]) fail(line, "a subscript is empty");
    return make(Kind::item, line, std::move(value), std::move(parts[0]));
  }
  return make(Kind::slice, line, std::move(value), std::move(parts[0]), std::move(parts[1]), std::move(parts[2]));
}

Arguments ExpressionParser::parse_arguments() {
  Arguments arguments;
  expect_symbol("(");
  for (bool first = true; !is_symbol(")"); first = false) {
    if (!first) {
      expect_symbol(",");
      if (is_symbol(")")) break;
    }
    if (is_symbol("*") || is_symbol("**")) fail(current().line, "* and ** in calls are not supported");
    if (current().kind == TokenKind::name && ahead().kind == TokenKind::symbol && ahead().text == "=") {
      std::string name = next().text;
      next();
      arguments.named.emplace_back(std::move(name), parse_expression());
    } else {
      if (!arguments.named.empty()) fail(current().line, "a positional argument follows a named one");
      arguments.positional.push_back(parse_expression());
    }
  }
  expect_symbol(")");
  return arguments;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr function) {
  auto call = make(Kind::call, current().line, std::move(function));
  call->arguments = parse_arguments();
  return call;
}

ExpressionPtr ExpressionParser::parse_filter(ExpressionPtr value, bool inline_start) {
  for (int links = 0; inline_start || is_symbol("|"); inline_start = false) {
    if (++links > 500) fail(current().line, "an expression has too many filters in a row");
    if (!inline_start) next();
    const int line = current().line;
    auto filter = with_text(make(Kind::filter, line, std::move(value)), expect_any_name());
    if (is_symbol("(")) filter->arguments = parse_arguments();
    value = std::move(filter);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr value) {
  const int line = next().line;
  const bool negated = skip_name("not");
  auto test = with_text(make(Kind::test, line, std::move(value)), expect_any_name());
  const TokenKind kind = current().kind;
  if (is_symbol("(")) {
    test->arguments = parse_arguments();
  } else if (kind == TokenKind::string || kind == TokenKind::integer || kind == TokenKind::real || is_symbol("[") ||
             is_symbol("{") || (kind == TokenKind::name && !is_name_of({"else", "or", "and"}))) {
    if (is_name("is")) fail(line, "tests with 'is' cannot be chained");
    test->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  return negated ? make(Kind::logical_not, line, std::move(test)) : std::move(test);
}

}  // namespace lathe::data::jinja
