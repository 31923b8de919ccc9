// Runs a parsed template.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/chat_template/builtins.h"
#include "data/chat_template/syntax.h"
#include "data/chat_template/value.h"

namespace lathe::data::jinja {

// Names that a block sees: its own, then those around it. Scopes live on the interpreter's stack; what refers to one
// (a macro) cannot be stored where it would outlive it.
struct Scope {
  Scope* outer = nullptr;
  std::vector<std::pair<std::string, Value>> names;
  const Value* find(const std::string& name) const;
  void set(const std::string& name, Value value);
};

// The variable `loop`.
struct LoopState {
  const std::vector<Value>* items;
  const Statement* statement = nullptr;  // of a recursive loop: what loop(…) runs again, in this scope
  Scope* scope = nullptr;
  size_t index = 0;
  int64_t depth = 1;
  std::optional<std::vector<Value>> last_changed;
};

class Interpreter {
 public:
  Interpreter(const ChatOptions& options, Budget& budget) : options_(options), budget_(budget) {}
  Text run(const Body& body, Scope& variables);

 private:
  enum class Flow { normal, loop_break, loop_continue };
  class Level;

  Flow run_body(const Body& body, Scope& scope, Text& out);
  Flow run_statement(const Statement& statement, Scope& scope, Text& out);
  Flow run_if(const Statement& statement, Scope& scope, Text& out);
  Flow run_for(const Statement& statement, Scope& scope, Text& out);
  Flow run_loop(const Statement& statement, std::vector<Value> items, Scope& scope, Text& out);
  void run_set(const Statement& statement, Scope& scope);
  void run_call_block(const Statement& statement, Scope& scope, Text& out);
  Text run_captured(const Body& body, Scope& outer);
  void assign(const Target& target, Value value, Scope& scope);
  void append(Text& out, const Text& text);

  Value evaluate(const Expression& expression, Scope& scope);
  Value evaluate_name(const Expression& expression, Scope& scope);
  Value evaluate_filter(const Expression& expression, Scope& scope);
  Value evaluate_compare(const Expression& expression, Scope& scope);
  Value evaluate_slice(const Expression& expression, Scope& scope);
  Value evaluate_arithmetic(const Expression& expression, Scope& scope);
  Value evaluate_call(const Expression& expression, Scope& scope);
  Value call(const Callable& callable, const CallArguments& arguments, Scope& scope, const Value* caller);
  Value call_global(const CallArguments& arguments);
  Value call_macro(const Callable& callable, const CallArguments& arguments, const Value* caller);
  Value loop_attribute(LoopState& loop, const std::string& name);
  Value call_loop(LoopState& loop, const CallArguments& arguments);
  Value call_recursive_loop(const LoopState& loop, const CallArguments& arguments);
  CallArguments evaluate_arguments(const Expression& expression, std::string function, Scope& scope);

  const ChatOptions& options_;
  Budget& budget_;
  int depth_ = 0;
  int64_t loop_depth_ = 0;
  const Value* filter_input_ = nullptr;  // what the innermost of a block's filters works on
};

// One level of nested statements or expressions, for as long as it lives: the native stack grows with each.
class Interpreter::Level {
 public:
  explicit Level(Interpreter& interpreter) : interpreter_(interpreter) {
    // The parser limits how deep a template's text nests; this stops macros that call each other.
    if (++interpreter_.depth_ > 8 * interpreter_.options_.limits.nesting) {
      --interpreter_.depth_;
      refuse(interpreter_.budget_, "calls are nested too deeply");
    }
  }
  ~Level() { --interpreter_.depth_; }

 private:
  Interpreter& interpreter_;
};

}  // namespace lathe::data::jinja
