#include "data/chat_template/parser.h"

#include <initializer_list>

#include "data/chat_template/expression_parser.h"

namespace lathe::data::jinja {
namespace {

class StatementParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body parse() { return parse_body({}); }

 private:
  // The statements up to a block tag named in `ends`; the current token is then that name.
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
    if (statement.expressions[0]->kind != ExpressionKind::call) fail(line, "{% call %} needs a call");
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
};

}  // namespace

Body parse_template(std::string_view source, int nesting) {
  return StatementParser(tokenize_template(source), nesting).parse();
}

}  // namespace lathe::data::jinja
