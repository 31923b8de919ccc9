// Expressions of the interpreter.
#include <algorithm>
#include <cmath>

#include "data/chat_template/interpreter.h"

namespace lathe::data::jinja {
namespace {

[[noreturn]] void refuse_operands(Budget& budget, const char* operation, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) refuse(budget, "'" + std::get<Undefined>(value->variant).name + "' is undefined");
  }
  refuse(budget, std::string(operation) + " of " + type_name(a) + " and " + type_name(b));
}

int64_t floor_division(int64_t a, int64_t b, int64_t& remainder) {
  int64_t quotient = a / b;
  remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    --quotient;
    remainder += b;
  }
  return quotient;
}

// Repeats text or a list; as in Python, a count below 0 means 0.
Value repeated(const Value& value, int64_t count, Budget& budget) {
  const uint64_t times = count < 0 ? 0 : static_cast<uint64_t>(count);
  if (const Text* text = value.text()) {
    if (times > 0 && text->bytes.size() > (uint64_t{1} << 40) / times) budget.check_bytes(SIZE_MAX);
    budget.check_bytes(text->bytes.size() * times);
    Text result;
    for (uint64_t i = 0; i < times && !text->bytes.empty(); ++i) result.append(*text);
    return result;
  }
  List result{{}, value.list()->kind};
  const size_t size = value.list()->items.size();
  // Paid before it is made: the steps that are left bound the memory.
  if (size > 0) budget.spend(times > UINT64_MAX / size ? UINT64_MAX : times * size);
  result.items.reserve(size * times);
  for (uint64_t i = 0; i < times && size > 0; ++i) {
    result.items.insert(result.items.end(), value.list()->items.begin(), value.list()->items.end());
  }
  return result;
}

Value integer_arithmetic(ExpressionKind kind, int64_t a, int64_t b, Budget& budget) {
  int64_t result = 0, remainder = 0;
  bool overflow = false;
  switch (kind) {
    case ExpressionKind::add: overflow = __builtin_add_overflow(a, b, &result); break;
    case ExpressionKind::subtract: overflow = __builtin_sub_overflow(a, b, &result); break;
    case ExpressionKind::multiply: overflow = __builtin_mul_overflow(a, b, &result); break;
    case ExpressionKind::power:
      if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
      result = 1;
      for (int64_t i = 0; i < b && !overflow && !(result == 0 || (a == 1) || (a == -1 && i >= 2)); ++i)
        overflow = __builtin_mul_overflow(result, a, &result);
      if (a == -1) result = b % 2 ? -1 : 1;
      break;
    default:
      if (b == 0) refuse(budget, "division by zero");
      if (kind == ExpressionKind::divide) return static_cast<double>(a) / static_cast<double>(b);
      if (a == INT64_MIN && b == -1) refuse(budget, "an integer is out of range");
      result = floor_division(a, b, remainder);
      if (kind == ExpressionKind::modulo) result = remainder;
  }
  if (overflow) refuse(budget, "an integer is out of range");
  return result;
}

Value real_arithmetic(ExpressionKind kind, double a, double b, Budget& budget) {
  switch (kind) {
    case ExpressionKind::add: return a + b;
    case ExpressionKind::subtract: return a - b;
    case ExpressionKind::multiply: return a * b;
    case ExpressionKind::power: return std::pow(a, b);
    default:
      if (b == 0) refuse(budget, "division by zero");
      if (kind == ExpressionKind::divide) return a / b;
      if (kind == ExpressionKind::floor_divide) return std::floor(a / b);
      const double remainder = std::fmod(a, b);
      return remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder;
  }
}

}  // namespace

const Value* CallArguments::find(size_t index, const char* name) const {
  if (index < positional_.size()) return &positional_[index];
  for (const auto& [known, value] : named_) {
    if (known == name) return &value;
  }
  return nullptr;
}

const Value& CallArguments::need(size_t index, const char* name) const {
  if (const Value* value = find(index, name)) return *value;
  refuse(budget_,
         function_ + "() lacks its argument " + (*name ? std::string("'") + name + "'" : std::to_string(index + 1)));
}

Value CallArguments::value_or(size_t index, const char* name, const Value& otherwise) const {
  const Value* value = find(index, name);
  return value ? *value : otherwise;
}

int64_t CallArguments::integer_or(size_t index, const char* name, int64_t otherwise) const {
  const Value* value = find(index, name);
  if (!value || value->is_none()) return otherwise;
  if (const auto integer = value->integer()) return *integer;
  refuse(budget_, function_ + "(): '" + name + "' must be an integer, not " + type_name(*value));
}

bool CallArguments::flag_or(size_t index, const char* name, bool otherwise) const {
  const Value* value = find(index, name);
  return value ? truthy(*value) : otherwise;
}

const Text* CallArguments::text_or_null(size_t index, const char* name) const {
  const Value* value = find(index, name);
  if (!value || value->is_none()) return nullptr;
  if (!value->text()) refuse(budget_, function_ + "(): '" + name + "' must be a string, not " + type_name(*value));
  return value->text();
}

Text CallArguments::need_text(size_t index, const char* name) const {
  const Value& value = need(index, name);
  if (!value.text()) refuse(budget_, function_ + "(): '" + name + "' must be a string, not " + type_name(value));
  return *value.text();
}

std::vector<Value> CallArguments::after(size_t index) const {
  if (index >= positional_.size()) return {};
  return {positional_.begin() + static_cast<std::ptrdiff_t>(index), positional_.end()};
}

Value Interpreter::evaluate(const Expression& expression, Scope& scope) {
  using Kind = ExpressionKind;
  const Level level(*this);
  budget_.spend(1);
  const auto operand = [&](size_t i) { return evaluate(*expression.operands[i], scope); };
  switch (expression.kind) {
    case Kind::none: return None{};
    case Kind::boolean: return expression.integer != 0;
    case Kind::integer:
      if (expression.integer > static_cast<uint64_t>(INT64_MAX)) return LargeInteger{expression.integer};
      return static_cast<int64_t>(expression.integer);
    case Kind::real: return expression.real;
    case Kind::string: return Text::own(expression.text);
    case Kind::name: return evaluate_name(expression, scope);
    case Kind::list:
    case Kind::tuple: {
      List list{{}, expression.kind == Kind::list ? List::Kind::list : List::Kind::tuple};
      for (size_t i = 0; i < expression.operands.size(); ++i) list.items.push_back(operand(i));
      return list;
    }
    case Kind::dict: {
      Dict dict;
      for (size_t i = 0; i < expression.operands.size(); i += 2) {
        Value key = operand(i);
        if (!key.text() && !key.number() && !key.is_none())
          refuse(budget_, std::string("a value of type ") + type_name(key) + " is no key for a dict");
        budget_.spend(dict.entries.size() / 8);
        dict.set(std::move(key), operand(i + 1));
      }
      return dict;
    }
    case Kind::attribute: {
      const Value value = operand(0);
      if (LoopState* const* loop = std::get_if<LoopState*>(&value.variant))
        return loop_attribute(**loop, expression.text);
      return attribute_of(value, expression.text, budget_);
    }
    case Kind::item: {
      const Value value = operand(0), key = operand(1);
      if (LoopState* const* loop = std::get_if<LoopState*>(&value.variant); loop && key.text())
        return loop_attribute(**loop, key.text()->bytes);
      return item_of(value, key, budget_);
    }
    case Kind::slice: return evaluate_slice(expression, scope);
    case Kind::call: return evaluate_call(expression, scope);
    case Kind::filter: return evaluate_filter(expression, scope);
    case Kind::test:
      return apply_test(expression.text, operand(0), evaluate_arguments(expression, expression.text, scope), budget_);
    case Kind::logical_not: return !truthy(operand(0));
    case Kind::logical_and: {
      Value left = operand(0);
      return truthy(left) ? operand(1) : left;
    }
    case Kind::logical_or: {
      Value left = operand(0);
      return truthy(left) ? left : operand(1);
    }
    case Kind::negate:
    case Kind::plus: {
      const Value value = operand(0);
      const bool negative = expression.kind == Kind::negate;
      if (const auto integer = value.integer()) {
        if (*integer == INT64_MIN) refuse(budget_, "an integer is out of range");
        return negative ? -*integer : *integer;
      }
      if (value.exact_integer()) {
        if (negative) refuse(budget_, "an integer is out of range");
        return value;
      }
      if (const auto number = value.number()) return negative ? -*number : *number;
      refuse_operands(budget_, "the sign", value, value);
    }
    case Kind::concatenate: {
      Text result;
      for (size_t i = 0; i < expression.operands.size(); ++i) result.append(text_of(operand(i), budget_));
      budget_.check_bytes(result.bytes.size());
      return result;
    }
    case Kind::compare: return evaluate_compare(expression, scope);
    case Kind::conditional:
      if (truthy(operand(1))) return operand(0);
      return expression.operands[2] ? operand(2) : Value(Undefined{"the value of an inline if without else"});
    default: return evaluate_arithmetic(expression, scope);
  }
}

Value Interpreter::evaluate_name(const Expression& expression, Scope& scope) {
  if (const Value* value = scope.find(expression.text)) return *value;
  for (const char* global : {"range", "namespace", "dict", "raise_exception", "strftime_now", "cycler", "joiner"}) {
    if (expression.text == global) return Callable{Callable::Kind::global, expression.text};
  }
  return Undefined{expression.text};
}

Value Interpreter::evaluate_filter(const Expression& expression, Scope& scope) {
  if (!expression.operands[0] && !filter_input_) refuse(budget_, "a filter has nothing to work on");
  const Value input = expression.operands[0] ? evaluate(*expression.operands[0], scope) : *filter_input_;
  return apply_filter(expression.text, input, evaluate_arguments(expression, expression.text, scope), budget_);
}

Value Interpreter::evaluate_compare(const Expression& expression, Scope& scope) {
  Value left = evaluate(*expression.operands[0], scope);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = evaluate(*expression.operands[i + 1], scope);
    bool holds = false;
    switch (expression.comparisons[i]) {
      case Comparison::equal: holds = equal(left, right, budget_); break;
      case Comparison::not_equal: holds = !equal(left, right, budget_); break;
      case Comparison::less: holds = less(left, right, budget_); break;
      case Comparison::less_equal: holds = !less(right, left, budget_); break;
      case Comparison::greater: holds = less(right, left, budget_); break;
      case Comparison::greater_equal: holds = !less(left, right, budget_); break;
      case Comparison::in: holds = contains(right, left, budget_); break;
      case Comparison::not_in: holds = !contains(right, left, budget_); break;
    }
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_slice(const Expression& expression, Scope& scope) {
  const Value value = evaluate(*expression.operands[0], scope);
  const auto bound = [&](size_t i) -> std::optional<int64_t> {
    if (!expression.operands[i]) return std::nullopt;
    const Value limit = evaluate(*expression.operands[i], scope);
    if (limit.is_none()) return std::nullopt;
    if (!limit.integer()) refuse(budget_, std::string("a slice needs integers, not ") + type_name(limit));
    return std::clamp<int64_t>(*limit.integer(), -(int64_t{1} << 60), int64_t{1} << 60);
  };
  const auto start = bound(1), stop = bound(2);
  const int64_t step = bound(3).value_or(1);
  if (step == 0) refuse(budget_, "a slice with a step of 0");
  if (value.is_undefined() || (!value.text() && !(value.list() && value.list()->kind != List::Kind::generator))) {
    if (value.is_undefined()) refuse(budget_, "'" + std::get<Undefined>(value.variant).name + "' is undefined");
    return Undefined{"a slice"};
  }
  const int64_t size = length_of(value, budget_);
  const auto place = [&](std::optional<int64_t> at, int64_t otherwise) {
    if (!at) return otherwise;
    const int64_t from_start = *at < 0 ? *at + size : *at;
    return step > 0 ? std::clamp<int64_t>(from_start, 0, size) : std::clamp<int64_t>(from_start, -1, size - 1);
  };
  const int64_t first = place(start, step > 0 ? 0 : size - 1), end = place(stop, step > 0 ? size : -1);
  if (const Text* text = value.text(); text && step == 1) {
    budget_.spend(text->bytes.size() / 64);
    const size_t begin_byte = byte_of_character(text->bytes, static_cast<size_t>(first));
    return text->slice(begin_byte, std::max(begin_byte, byte_of_character(text->bytes, static_cast<size_t>(end))));
  }
  const std::vector<Value> items = items_of(value, budget_);
  std::vector<Value> taken;
  for (int64_t at = first; step > 0 ? at < end : at > end; at += step) taken.push_back(items[static_cast<size_t>(at)]);
  if (value.list()) return List{std::move(taken), value.list()->kind};
  Text joined;
  for (const Value& character : taken) joined.append(*character.text());
  return joined;
}

Value Interpreter::evaluate_arithmetic(const Expression& expression, Scope& scope) {
  using Kind = ExpressionKind;
  const Value left = evaluate(*expression.operands[0], scope), right = evaluate(*expression.operands[1], scope);
  if (const auto a = left.integer(), b = right.integer(); a && b)
    return integer_arithmetic(expression.kind, *a, *b, budget_);
  if (left.exact_integer() && right.exact_integer()) refuse(budget_, "an integer is out of range");
  if (const auto a = left.number(), b = right.number(); a && b)
    return real_arithmetic(expression.kind, *a, *b, budget_);
  if (expression.kind == Kind::add) {
    if (left.text() && right.text()) {
      budget_.check_bytes(left.text()->bytes.size() + right.text()->bytes.size());
      Text result = *left.text();
      result.append(*right.text());
      return result;
    }
    if (left.list() && right.list() && left.list()->kind == right.list()->kind &&
        left.list()->kind != List::Kind::generator) {
      budget_.spend(left.list()->items.size() + right.list()->items.size());
      List result{left.list()->items, left.list()->kind};
      result.items.insert(result.items.end(), right.list()->items.begin(), right.list()->items.end());
      return result;
    }
    refuse_operands(budget_, "the sum", left, right);
  }
  const auto repeatable = [](const Value& value) {
    return value.text() || (value.list() && value.list()->kind != List::Kind::generator);
  };
  if (expression.kind == Kind::multiply) {
    if (repeatable(left) && right.integer()) return repeated(left, *right.integer(), budget_);
    if (repeatable(right) && left.integer()) return repeated(right, *left.integer(), budget_);
  }
  if (expression.kind == Kind::modulo && left.text()) return percent_format(*left.text(), right, budget_);
  refuse_operands(budget_, "arithmetic", left, right);
}

CallArguments Interpreter::evaluate_arguments(const Expression& expression, std::string function, Scope& scope) {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  for (const ExpressionPtr& argument : expression.arguments.positional)
    positional.push_back(evaluate(*argument, scope));
  for (const auto& [name, argument] : expression.arguments.named) named.emplace_back(name, evaluate(*argument, scope));
  return CallArguments(std::move(function), std::move(positional), std::move(named), budget_);
}

Value Interpreter::evaluate_call(const Expression& expression, Scope& scope) {
  const Expression& target = *expression.operands[0];
  Value function;
  if (target.kind == ExpressionKind::attribute) {
    const Value receiver = evaluate(*target.operands[0], scope);
    if (LoopState* const* loop = std::get_if<LoopState*>(&receiver.variant)) {
      return call_loop(**loop, evaluate_arguments(expression, target.text, scope));
    }
    function = attribute_of(receiver, target.text, budget_);
    if (!function.callable()) {
      refuse(budget_, std::string("a value of type ") + type_name(receiver) + " has no method '" + target.text +
                          "' that templates may call");
    }
  } else {
    function = evaluate(target, scope);
  }
  if (LoopState* const* loop = std::get_if<LoopState*>(&function.variant))
    return call_recursive_loop(**loop, evaluate_arguments(expression, "loop", scope));
  if (Namespace* space = function.space(); space && space->kind == Namespace::Kind::joiner)
    return std::exchange(space->position, 1) == 0 ? Value(Text{}) : space->entries[0].second;
  if (function.is_undefined()) refuse(budget_, "'" + std::get<Undefined>(function.variant).name + "' is undefined");
  if (!function.callable())
    refuse(budget_, std::string("a value of type ") + type_name(function) + " cannot be called");
  return call(*function.callable(), evaluate_arguments(expression, function.callable()->name, scope), scope, nullptr);
}

}  // namespace lathe::data::jinja
