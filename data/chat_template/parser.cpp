#include "data/chat_template/parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "data/chat_template/lexer.h"

namespace lathe::data::jinja {
namespace {

using Kind = ExpressionKind;

class Parser {
 public:
  Parser(std::vector<Token> tokens, int nesting) : tokens_(std::move(tokens)), nesting_left_(nesting) {}

  Body parse() {
    Body body = parse_body({});
    return body;
  }

 private:
  // One level of nesting, for as long as it lives.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (--parser_.nesting_left_ < 0) fail(parser_.current().line, "the template is nested too deeply");
    }
    ~Level() { ++parser_.nesting_left_; }

   private:
    Parser& parser_;
  };

  // -- tokens
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
  [[noreturn]] void unexpected(const std::string& wanted) const {
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

  // -- statements
  // Up to {% one of `ends`; that name is then current.
  Body parse_body(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    Body body;
    while (true) {
      const Token& token = current();
      switch (token.kind) {
        case TokenKind::data: {
          Statement& data = body.emplace_back(Statement{StatementKind::data, token.line});
          data.text = token.text;
          next();
          break;
        }
        case TokenKind::output_begin: {
          next();
          Statement& output = body.emplace_back(Statement{StatementKind::output, token.line});
          output.expressions.push_back(parse_tuple(true));
          expect(TokenKind::output_end, "'}}'");
          break;
        }
        case TokenKind::block_begin:
          next();
          if (is_name_of(ends)) return body;
          body.push_back(parse_statement());
          expect(TokenKind::block_end, "'%}'");
          break;
        default:
          if (ends.size() > 0) unexpected("{% " + std::string(*(ends.end() - 1)) + " %}");
          if (token.kind != TokenKind::end) unexpected("a tag or text");
          return body;
      }
    }
  }

  // The body of a block: ':' is allowed before it, its end name is consumed if `ends` is a single one.
  Body parse_block(std::initializer_list<std::string_view> ends) {
    skip_symbol(":");
    expect(TokenKind::block_end, "'%}'");
    Body body = parse_body(ends);
    if (ends.size() == 1) next();
    return body;
  }

  Statement parse_statement() {
    const int line = current().line;
    const std::string name = expect_any_name();
    if (name == "if") return parse_if(line);
    if (name == "for") return parse_for(line);
    if (name == "set") return parse_set(line);
    if (name == "macro") return parse_macro(line);
    if (name == "call") return parse_call_block(line);
    if (name == "with") return parse_with(line);
    if (name == "break") return {StatementKind::loop_break, line};
    if (name == "continue") return {StatementKind::loop_continue, line};
    if (name == "generation") {
      Statement statement{StatementKind::generation, line};
      statement.bodies.push_back(parse_block({"endgeneration"}));
      return statement;
    }
    if (name == "filter") {
      Statement statement{StatementKind::filter_block, line};
      statement.expressions.push_back(parse_filter(nullptr, true));
      statement.bodies.push_back(parse_block({"endfilter"}));
      return statement;
    }
    fail(line, "the tag '" + name + "' is unknown, out of place, or not for chat templates");
  }

  Statement parse_if(int line) {
    Statement statement{StatementKind::if_chain, line};
    while (true) {
      statement.expressions.push_back(parse_tuple(false));
      statement.bodies.push_back(parse_block({"elif", "else", "endif"}));
      const std::string end = next().text;
      if (end == "elif") continue;
      if (end == "else") statement.bodies.push_back(parse_block({"endif"}));
      return statement;
    }
  }

  Statement parse_for(int line) {
    Statement statement{StatementKind::for_loop, line};
    statement.targets.push_back(parse_target());
    expect_name("in");
    statement.expressions.push_back(parse_tuple(false));
    statement.expressions.push_back(skip_name("if") ? parse_expression() : nullptr);
    statement.recursive = skip_name("recursive");
    statement.bodies.push_back(parse_block({"endfor", "else"}));
    if (next().text == "else") statement.bodies.push_back(parse_block({"endfor"}));
    return statement;
  }

  Statement parse_set(int line) {
    Statement statement{StatementKind::set, line};
    statement.targets.push_back(parse_target());
    if (skip_symbol("=")) {
      statement.expressions.push_back(parse_tuple(true));
      return statement;
    }
    statement.kind = StatementKind::set_block;
    if (is_symbol("|")) statement.expressions.push_back(parse_filter(nullptr, false));
    statement.bodies.push_back(parse_block({"endset"}));
    return statement;
  }

  Statement parse_macro(int line) {
    Statement statement{StatementKind::macro, line};
    statement.text = expect_any_name();
    parse_parameters(statement);
    statement.bodies.push_back(parse_block({"endmacro"}));
    return statement;
  }

  Statement parse_call_block(int line) {
    Statement statement{StatementKind::call_block, line};
    if (is_symbol("(")) parse_parameters(statement);
    statement.expressions.push_back(parse_unary(true));
    if (statement.expressions[0]->kind != Kind::call) fail(line, "{% call %} needs a call");
    statement.bodies.push_back(parse_block({"endcall"}));
    return statement;
  }

  Statement parse_with(int line) {
    Statement statement{StatementKind::with, line};
    while (current().kind != TokenKind::block_end) {
      if (!statement.targets.empty()) expect_symbol(",");
      statement.targets.push_back(parse_single_target());
      expect_symbol("=");
      statement.expressions.push_back(parse_expression());
    }
    statement.bodies.push_back(parse_block({"endwith"}));
    return statement;
  }

  void parse_parameters(Statement& statement) {
    expect_symbol("(");
    while (!is_symbol(")")) {
      if (!statement.parameters.empty()) expect_symbol(",");
      Parameter parameter{expect_any_name(), nullptr};
      if (skip_symbol("=")) {
        parameter.default_value = parse_expression();
      } else if (!statement.parameters.empty() && statement.parameters.back().default_value) {
        fail(current().line, "a parameter without a default follows one with a default");
      }
      statement.parameters.push_back(std::move(parameter));
    }
    expect_symbol(")");
  }

  Target parse_single_target() {
    const Level level(*this);
    Target target;
    if (skip_symbol("(")) {
      target = parse_target();
      expect_symbol(")");
      return target;
    }
    target.name = expect_any_name();
    if (skip_symbol(".")) target.attribute = expect_any_name();
    return target;
  }

  Target parse_target() {
    Target first = parse_single_target();
    if (!is_symbol(",")) return first;
    Target all;
    all.parts.push_back(std::move(first));
    while (skip_symbol(",")) {
      if (current().kind != TokenKind::name && !is_symbol("(")) break;
      if (is_name("in")) break;
      all.parts.push_back(parse_single_target());
    }
    return all;
  }

  // -- expressions
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

  ExpressionPtr parse_tuple(bool with_conditional) {
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

  ExpressionPtr parse_expression() {
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

  ExpressionPtr parse_or() {
    const int line = current().line;
    ExpressionPtr left = parse_and();
    for (int links = 0; skip_name("or");) left = chain(Kind::logical_or, line, std::move(left), parse_and(), links);
    return left;
  }

  ExpressionPtr parse_and() {
    const int line = current().line;
    ExpressionPtr left = parse_not();
    for (int links = 0; skip_name("and");) left = chain(Kind::logical_and, line, std::move(left), parse_not(), links);
    return left;
  }

  // A left-leaning chain is as deep as it is long: evaluating it nests.
  ExpressionPtr chain(Kind kind, int line, ExpressionPtr left, ExpressionPtr right, int& links) {
    if (++links > 500) fail(line, "an expression has too many operators in a row");
    return make(kind, line, std::move(left), std::move(right));
  }

  ExpressionPtr parse_not() {
    const Level level(*this);
    const int line = current().line;
    if (skip_name("not")) return make(Kind::logical_not, line, parse_not());
    return parse_compare();
  }

  ExpressionPtr parse_compare() {
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

  ExpressionPtr parse_sum() {
    const int line = current().line;
    ExpressionPtr left = parse_concatenation();
    for (int links = 0; is_symbol("+") || is_symbol("-");) {
      const Kind kind = next().text == "+" ? Kind::add : Kind::subtract;
      left = chain(kind, line, std::move(left), parse_concatenation(), links);
    }
    return left;
  }

  ExpressionPtr parse_concatenation() {
    const int line = current().line;
    ExpressionPtr first = parse_product();
    if (!is_symbol("~")) return first;
    auto all = make(Kind::concatenate, line, std::move(first));
    while (skip_symbol("~")) all->operands.push_back(parse_product());
    return all;
  }

  ExpressionPtr parse_product() {
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

  ExpressionPtr parse_power() {
    const int line = current().line;
    ExpressionPtr left = parse_unary(true);
    for (int links = 0; skip_symbol("**");) left = chain(Kind::power, line, std::move(left), parse_unary(true), links);
    return left;
  }

  ExpressionPtr parse_unary(bool with_filter) {
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

  ExpressionPtr parse_primary() {
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
        if (at_ > 0 && token.kind != TokenKind::end) --at_;
        unexpected("an expression");
    }
  }

  ExpressionPtr with_text(ExpressionPtr expression, const std::string& text) {
    expression->text = text;
    return expression;
  }

  ExpressionPtr parse_parenthesis(int line) {
    if (skip_symbol(")")) return make(Kind::tuple, line);
    ExpressionPtr value = parse_tuple(true);
    expect_symbol(")");
    return value;
  }

  ExpressionPtr parse_items(Kind kind, const char* closing, int line) {
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

  ExpressionPtr parse_postfix(ExpressionPtr value) {
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

  ExpressionPtr parse_subscript(ExpressionPtr value, int line) {
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

  Arguments parse_arguments() {
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

  ExpressionPtr parse_call(ExpressionPtr function) {
    auto call = make(Kind::call, current().line, std::move(function));
    call->arguments = parse_arguments();
    return call;
  }

  // One or more filters. `inline_start`: the first has no '|' before it ({% filter upper %}).
  ExpressionPtr parse_filter(ExpressionPtr value, bool inline_start) {
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

  ExpressionPtr parse_test(ExpressionPtr value) {
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

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_left_;
};

}  // namespace

Body parse_template(std::string_view source, int nesting) { return Parser(tokenize_template(source), nesting).parse(); }

}  // namespace lathe::data::jinja
