// What a template is once it is parsed. Names follow Jinja's own nodes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lathe::data::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind {
  none,
  boolean,
  integer,
  real,
  string,  // constants
  name,
  list,
  tuple,
  dict,       // operands: items; for dict: key, value, key, value, …
  attribute,  // operands[0].text
  item,       // operands[0][operands[1]]
  slice,      // operands[0][operands[1]:operands[2]:operands[3]], null where absent
  call,       // operands[0](arguments)
  filter,     // operands[0] | text(arguments); null operand inside {% filter %} and {% set | %}
  test,       // operands[0] is text(arguments)
  logical_not,
  logical_and,
  logical_or,
  negate,
  plus,
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  concatenate,
  compare,      // operands[0] comparisons[0] operands[1] comparisons[1] operands[2] …
  conditional,  // operands[0] if operands[1] else operands[2] (null: undefined)
};

enum class Comparison { equal, not_equal, less, less_equal, greater, greater_equal, in, not_in };

struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Expression {
  ExpressionKind kind;
  int line = 0;
  std::string text;  // a name, a string constant, a filter…
  uint64_t integer = 0;
  double real = 0;
  std::vector<ExpressionPtr> operands;
  std::vector<Comparison> comparisons;
  Arguments arguments;
};

struct Statement;
using Body = std::vector<Statement>;

enum class StatementKind {
  data,
  output,
  if_chain,
  for_loop,
  set,
  set_block,
  macro,
  call_block,
  filter_block,
  with,
  generation,
  loop_break,
  loop_continue,
};

// a, (b, c) or namespace.attribute
struct Target {
  std::string name;
  std::string attribute;      // of a namespace
  std::vector<Target> parts;  // unpacked into these
};

struct Parameter {
  std::string name;
  ExpressionPtr default_value;
};

struct Statement {
  StatementKind kind;
  int line = 0;
  std::string text;                        // data; a macro's name
  std::vector<ExpressionPtr> expressions;  // output: one; if: the conditions; for: iterable and test; set, with: values
  std::vector<Body> bodies;                // if: one for each condition, then else; for: body, else
  std::vector<Target> targets;
  std::vector<Parameter> parameters;  // macro, call_block
  bool recursive = false;
};

}  // namespace lathe::data::jinja
