// "x is …"
#include "data/chat_template/builtins.h"

namespace lathe::data::jinja {
namespace {

int64_t need_integer(const Value& value, const CallArguments& arguments, Budget& budget) {
  if (const auto integer = value.integer()) return *integer;
  refuse(budget, "the test '" + arguments.function() + "' needs an integer, not " + type_name(value));
}

}  // namespace

bool apply_test(const std::string& name, const Value& value, const CallArguments& arguments, Budget& budget) {
  budget.spend(1);
  const bool is_boolean = std::holds_alternative<bool>(value.variant);
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "boolean") return is_boolean;
  if (name == "true") return is_boolean && truthy(value);
  if (name == "false") return is_boolean && !truthy(value);
  if (name == "string") return value.text();
  if (name == "integer") return value.exact_integer() && !is_boolean;
  if (name == "float") return std::holds_alternative<double>(value.variant);
  if (name == "number") return value.number().has_value();
  if (name == "mapping") return value.dict();
  if (name == "sequence")
    return value.text() || value.dict() || value.is_undefined() ||
           (value.list() && value.list()->kind != List::Kind::generator);
  if (name == "iterable") return value.text() || value.dict() || value.list() || value.is_undefined();
  if (name == "callable") return value.callable();
  if (name == "escaped") return false;
  if (name == "odd") return need_integer(value, arguments, budget) % 2 != 0;
  if (name == "even") return need_integer(value, arguments, budget) % 2 == 0;
  if (name == "divisibleby") {
    const int64_t divisor = need_integer(arguments.need(0, "num"), arguments, budget);
    if (divisor == 0 || divisor == -1) {
      if (divisor == -1) return true;
      refuse(budget, "division by zero");
    }
    return need_integer(value, arguments, budget) % divisor == 0;
  }
  if (name == "lower" || name == "upper") {
    const Text text = text_of(value, budget);
    const std::string lower = lower_case(text.bytes), upper = upper_case(text.bytes);
    return lower != upper && text.bytes == (name == "lower" ? lower : upper);
  }
  if (name == "sameas") {
    const Value& other = arguments.need(0, "other");
    return value.variant.index() == other.variant.index() && equal(value, other, budget);
  }
  if (name == "in") return contains(arguments.need(0, "seq"), value, budget);
  if (name == "eq" || name == "equalto" || name == "==") return equal(value, arguments.need(0, "other"), budget);
  if (name == "ne" || name == "!=") return !equal(value, arguments.need(0, "other"), budget);
  if (name == "lt" || name == "lessthan" || name == "<") return less(value, arguments.need(0, "other"), budget);
  if (name == "gt" || name == "greaterthan" || name == ">") return less(arguments.need(0, "other"), value, budget);
  if (name == "le" || name == "<=") return !less(arguments.need(0, "other"), value, budget);
  if (name == "ge" || name == ">=") return !less(value, arguments.need(0, "other"), budget);
  refuse(budget, "there is no test '" + name + "'");
}

}  // namespace lathe::data::jinja
