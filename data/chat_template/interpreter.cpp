#include "data/chat_template/interpreter.h"

#include <algorithm>
#include <ctime>

#include "data/chat_template/lexer.h"

namespace lathe::data::jinja {

const Value* Scope::find(const std::string& name) const {
  for (const Scope* scope = this; scope; scope = scope->outer) {
    for (const auto& [known, value] : scope->names) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  for (auto& [known, content] : names) {
    if (known == name) {
      content = std::move(value);
      return;
    }
  }
  names.emplace_back(name, std::move(value));
}

Text Interpreter::run(const Body& body, Scope& variables) {
  Text out;
  Scope scope{&variables, {}};
  run_body(body, scope, out);
  return out;
}

void Interpreter::append(Text& out, const Text& text) {
  out.append(text);
  if (!text.bytes.empty()) budget_.spend(text.bytes.size() / 64 + text.inserted.size() + 1);
  if (out.bytes.size() > options_.limits.output_bytes) budget_.check_bytes(out.bytes.size());
}

Interpreter::Flow Interpreter::run_body(const Body& body, Scope& scope, Text& out) {
  const Level level(*this);
  for (const Statement& statement : body) {
    const Flow flow = run_statement(statement, scope, out);
    if (flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement, Scope& scope, Text& out) {
  budget_.line = statement.line;
  budget_.spend(1);
  switch (statement.kind) {
    case StatementKind::data: append(out, Text::own(statement.text)); return Flow::normal;
    case StatementKind::output:
      append(out, text_of(evaluate(*statement.expressions[0], scope), budget_));
      return Flow::normal;
    case StatementKind::if_chain: return run_if(statement, scope, out);
    case StatementKind::for_loop: return run_for(statement, scope, out);
    case StatementKind::set:
    case StatementKind::set_block: run_set(statement, scope); return Flow::normal;
    case StatementKind::macro:
      scope.set(statement.text, Callable{Callable::Kind::macro, statement.text, {}, &statement, &scope, {}});
      return Flow::normal;
    case StatementKind::call_block: run_call_block(statement, scope, out); return Flow::normal;
    case StatementKind::filter_block: {
      const Value content = run_captured(statement.bodies[0], scope);
      const Value* outer_input = std::exchange(filter_input_, &content);
      const Text filtered = text_of(evaluate(*statement.expressions[0], scope), budget_);
      filter_input_ = outer_input;
      append(out, filtered);
      return Flow::normal;
    }
    case StatementKind::with: {
      Scope inner{&scope, {}};
      for (size_t i = 0; i < statement.targets.size(); ++i)
        assign(statement.targets[i], evaluate(*statement.expressions[i], scope), inner);
      return run_body(statement.bodies[0], inner, out);
    }
    case StatementKind::generation: {
      const Text content = run_captured(statement.bodies[0], scope);
      const size_t begin = out.bytes.size();
      append(out, content);
      out.generated.push_back({begin, out.bytes.size()});
      return Flow::normal;
    }
    case StatementKind::loop_break: return Flow::loop_break;
    case StatementKind::loop_continue: return Flow::loop_continue;
  }
  return Flow::normal;
}

Text Interpreter::run_captured(const Body& body, Scope& outer) {
  Scope inner{&outer, {}};
  Text content;
  run_body(body, inner, content);
  return content;
}

Interpreter::Flow Interpreter::run_if(const Statement& statement, Scope& scope, Text& out) {
  for (size_t i = 0; i < statement.expressions.size(); ++i) {
    if (truthy(evaluate(*statement.expressions[i], scope))) return run_body(statement.bodies[i], scope, out);
  }
  if (statement.bodies.size() > statement.expressions.size()) return run_body(statement.bodies.back(), scope, out);
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_for(const Statement& statement, Scope& scope, Text& out) {
  return run_loop(statement, items_of(evaluate(*statement.expressions[0], scope), budget_), scope, out);
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement, std::vector<Value> items, Scope& scope, Text& out) {
  if (const Expression* condition = statement.expressions[1].get()) {
    std::vector<Value> kept;
    for (Value& item : items) {
      Scope inner{&scope, {}};
      assign(statement.targets[0], item, inner);
      if (truthy(evaluate(*condition, inner))) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    if (statement.bodies.size() < 2) return Flow::normal;
    Scope inner{&scope, {}};
    return run_body(statement.bodies[1], inner, out);
  }
  LoopState loop{&items, statement.recursive ? &statement : nullptr, &scope};
  loop.depth = ++loop_depth_;
  for (; loop.index < items.size(); ++loop.index) {
    budget_.spend(1);
    Scope inner{&scope, {}};
    inner.set("loop", &loop);
    assign(statement.targets[0], items[loop.index], inner);
    if (run_body(statement.bodies[0], inner, out) == Flow::loop_break) break;
  }
  --loop_depth_;
  return Flow::normal;
}

void Interpreter::run_set(const Statement& statement, Scope& scope) {
  if (statement.kind == StatementKind::set)
    return assign(statement.targets[0], evaluate(*statement.expressions[0], scope), scope);
  Value content = run_captured(statement.bodies[0], scope);
  if (!statement.expressions.empty()) {
    const Value* outer_input = std::exchange(filter_input_, &content);
    Value filtered = evaluate(*statement.expressions[0], scope);
    filter_input_ = outer_input;
    content = std::move(filtered);
  }
  assign(statement.targets[0], std::move(content), scope);
}

void Interpreter::assign(const Target& target, Value value, Scope& scope) {
  budget_.spend(1);
  if (!target.parts.empty()) {
    const std::vector<Value> items = items_of(value, budget_);
    if (items.size() != target.parts.size()) {
      refuse(budget_, std::to_string(items.size()) + " values cannot be unpacked into " +
                          std::to_string(target.parts.size()) + " names");
    }
    for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i], scope);
    return;
  }
  if (target.attribute.empty()) return scope.set(target.name, std::move(value));
  const Value* space = scope.find(target.name);
  if (!space || !space->space())
    refuse(budget_, "attributes can be set on namespaces only, and '" + target.name + "' is none");
  const bool transient = value.space() || value.callable() || std::holds_alternative<LoopState*>(value.variant) ||
                         (value.list() && value.list()->transient) || (value.dict() && value.dict()->transient);
  if (transient) refuse(budget_, "a namespace cannot hold a namespace, a macro, a method or a loop");
  for (auto& [name, content] : space->space()->entries) {
    if (name == target.attribute) {
      content = std::move(value);
      return;
    }
  }
  space->space()->entries.emplace_back(target.attribute, std::move(value));
}

void Interpreter::run_call_block(const Statement& statement, Scope& scope, Text& out) {
  const Value* outer = scope.find("caller");
  const Value caller = Callable{Callable::Kind::caller, "caller", {}, &statement, &scope, outer ? *outer : Value()};
  const Expression& expression = *statement.expressions[0];
  const Value function = evaluate(*expression.operands[0], scope);
  if (!function.callable() || function.callable()->kind != Callable::Kind::macro)
    refuse(budget_, "{% call %} needs a macro");
  append(out, text_of(call(*function.callable(), evaluate_arguments(expression, function.callable()->name, scope),
                           scope, &caller),
                      budget_));
}

Value Interpreter::call(const Callable& callable, const CallArguments& arguments, Scope& scope, const Value* caller) {
  switch (callable.kind) {
    case Callable::Kind::global: return call_global(arguments);
    case Callable::Kind::method: return call_method(callable.receiver, arguments, budget_);
    case Callable::Kind::macro:
    case Callable::Kind::caller: return call_macro(callable, arguments, caller);
  }
  (void)scope;
  return {};
}

Value Interpreter::call_macro(const Callable& callable, const CallArguments& arguments, const Value* caller) {
  const Level level(*this);
  const auto& parameters = callable.macro->parameters;
  if (arguments.positional().size() > parameters.size()) {
    refuse(budget_, "'" + callable.name + "' takes " + std::to_string(parameters.size()) + " arguments at most");
  }
  for (const auto& [name, value] : arguments.named()) {
    if (std::none_of(parameters.begin(), parameters.end(),
                     [&, &wanted = name](const Parameter& p) { return p.name == wanted; })) {
      refuse(budget_, "'" + callable.name + "' has no parameter '" + name + "'");
    }
  }
  Scope scope{callable.scope, {}};
  if (caller) scope.set("caller", *caller);
  if (callable.kind == Callable::Kind::caller) scope.set("caller", callable.outer_caller);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Value* given = arguments.find(i, parameters[i].name.c_str());
    scope.set(parameters[i].name, given                         ? *given
                                  : parameters[i].default_value ? evaluate(*parameters[i].default_value, scope)
                                                                : Value(Undefined{parameters[i].name}));
  }
  const int line = budget_.line;
  Text out;
  run_body(callable.macro->bodies[0], scope, out);
  budget_.line = line;
  return out;
}

Value Interpreter::call_global(const CallArguments& arguments) {
  const std::string& name = arguments.function();
  if (name == "raise_exception") refuse(budget_, text_of(arguments.need(0, "message"), budget_).bytes);
  if (name == "range") {
    const auto bound = [&](size_t i) {
      const auto value = arguments.need(i, "").integer();
      if (!value || *value > (int64_t{1} << 40) || *value < -(int64_t{1} << 40))
        refuse(budget_, "range() needs integers of moderate size");
      return *value;
    };
    const size_t count = arguments.positional().size();
    const int64_t start = count > 1 ? bound(0) : 0, stop = bound(count > 1 ? 1 : 0), step = count > 2 ? bound(2) : 1;
    if (step == 0) refuse(budget_, "range() with a step of 0");
    List list;
    for (int64_t at = start; step > 0 ? at < stop : at > stop; at += step) {
      budget_.spend(1);
      list.items.emplace_back(at);
    }
    return list;
  }
  if (name == "namespace" || name == "dict") {
    Dict dict;
    if (const Value* from = arguments.positional().empty() ? nullptr : &arguments.positional()[0]) {
      if (!from->dict()) refuse(budget_, name + "() takes a dict or named values");
      budget_.spend(from->dict()->entries.size());
      dict.entries = from->dict()->entries;
    }
    for (const auto& [key, value] : arguments.named()) dict.set(Text::own(key), value);
    const Value made(std::move(dict));
    if (name == "dict") return made;
    if (made.dict()->transient) refuse(budget_, "a namespace cannot hold a namespace, a macro, a method or a loop");
    auto space = std::make_shared<Namespace>();
    for (const auto& [key, value] : made.dict()->entries)
      space->entries.emplace_back(text_of(key, budget_).bytes, value);
    return space;
  }
  if (name == "cycler" || name == "joiner") {
    auto space = std::make_shared<Namespace>();
    space->kind = name == "cycler" ? Namespace::Kind::cycler : Namespace::Kind::joiner;
    if (name == "joiner") {
      space->entries.emplace_back("", arguments.value_or(0, "sep", Text::own(", ")));
    } else {
      for (const Value& item : arguments.positional()) space->entries.emplace_back("", item);
      if (space->entries.empty()) refuse(budget_, "cycler() needs at least one item");
    }
    for (const auto& [key, item] : space->entries) {
      if (item.space() || item.callable() || (item.list() && item.list()->transient) ||
          (item.dict() && item.dict()->transient))
        refuse(budget_, name + "() cannot hold a namespace or a macro");
    }
    return space;
  }
  if (name == "strftime_now") {
    const std::time_t now = options_.now_seconds ? static_cast<std::time_t>(*options_.now_seconds) : std::time(nullptr);
    std::tm parts{};
    options_.now_seconds ? gmtime_r(&now, &parts) : localtime_r(&now, &parts);
    const std::string format = arguments.need_text(0, "format").bytes;
    if (format.size() > 200) refuse(budget_, "strftime_now: the format is too long");
    char buffer[4096];
    return Text::own(std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &parts)));
  }
  refuse(budget_, "there is no function '" + name + "'");
}

Value Interpreter::loop_attribute(LoopState& loop, const std::string& name) {
  const auto size = static_cast<int64_t>(loop.items->size()), index = static_cast<int64_t>(loop.index);
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return size - index;
  if (name == "revindex0") return size - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == size;
  if (name == "length") return size;
  if (name == "depth") return loop.depth;
  if (name == "depth0") return loop.depth - 1;
  if (name == "previtem") return index > 0 ? (*loop.items)[loop.index - 1] : Value(Undefined{"loop.previtem"});
  if (name == "nextitem") return index + 1 < size ? (*loop.items)[loop.index + 1] : Value(Undefined{"loop.nextitem"});
  return Undefined{"loop." + name};
}

// {{ loop(children) }} inside {% for … recursive %}
Value Interpreter::call_recursive_loop(const LoopState& loop, const CallArguments& arguments) {
  if (!loop.statement) refuse(budget_, "loop() needs a loop that is marked recursive");
  const Level level(*this);
  const int line = budget_.line;
  Text out;
  run_loop(*loop.statement, items_of(arguments.need(0, "iterable"), budget_), *loop.scope, out);
  budget_.line = line;
  return out;
}

// loop.cycle(a, b, …) and loop.changed(value)
Value Interpreter::call_loop(LoopState& loop, const CallArguments& arguments) {
  if (arguments.function() == "cycle") {
    if (arguments.positional().empty()) refuse(budget_, "loop.cycle() without values");
    return arguments.positional()[loop.index % arguments.positional().size()];
  }
  if (arguments.function() != "changed") refuse(budget_, "loop has no method '" + arguments.function() + "'");
  const bool changed = !loop.last_changed || loop.last_changed->size() != arguments.positional().size() ||
                       !std::equal(loop.last_changed->begin(), loop.last_changed->end(), arguments.positional().begin(),
                                   [&](const Value& a, const Value& b) { return equal(a, b, budget_); });
  loop.last_changed = arguments.positional();
  return changed;
}

}  // namespace lathe::data::jinja
