#include "data/chat_template/value.h"

#include <algorithm>
#include <cmath>

#include "data/chat_template/lexer.h"
#include "data/tokenizer/utf8.h"

namespace lathe::data::jinja {
namespace {

constexpr int max_container_depth = 200;
constexpr uint64_t bytes_per_step = 64;

// Depth is limited when a container is made, so that walking and freeing one cannot overflow the stack.
void note_content(const Value& value, int& depth, bool& transient) {
  if (const List* list = value.list()) {
    depth = std::max(depth, list->depth + 1);
    transient |= list->transient;
  } else if (const Dict* dict = value.dict()) {
    depth = std::max(depth, dict->depth + 1);
    transient |= dict->transient;
  } else if (value.space() || value.callable() || std::holds_alternative<LoopState*>(value.variant)) {
    transient = true;
  }
  if (depth > max_container_depth) fail(0, "lists are nested too deeply");
}

}  // namespace

Budget::Budget(const TemplateLimits& limits)
    : limits_(limits),
      steps_left_(limits.steps),
      next_clock_(limits.steps),
      deadline_(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                       std::chrono::duration<double>(limits.seconds))) {}

void Budget::spend(uint64_t steps) {
  if (steps >= steps_left_) fail(line, "the template needs more than " + std::to_string(limits_.steps) + " steps");
  steps_left_ -= steps;
  if (steps_left_ > next_clock_) return;
  next_clock_ = steps_left_ > 20'000 ? steps_left_ - 20'000 : 0;
  if (std::chrono::steady_clock::now() > deadline_) {
    fail(line,
         "the template needs more than " + std::to_string(static_cast<int>(std::ceil(limits_.seconds))) + " seconds");
  }
}

void Budget::check_bytes(size_t bytes) {
  if (bytes > limits_.output_bytes)
    fail(line, "the template makes more than " + std::to_string(limits_.output_bytes) + " bytes of text");
  spend(bytes / bytes_per_step + 1);
}

Value::Value(List list) {
  for (const Value& item : list.items) note_content(item, list.depth, list.transient);
  variant = std::make_shared<const List>(std::move(list));
}
Value::Value(Dict dict) {
  for (const auto& [key, value] : dict.entries) note_content(value, dict.depth, dict.transient);
  variant = std::make_shared<const Dict>(std::move(dict));
}
Value::Value(Callable callable) : variant(std::make_shared<const Callable>(std::move(callable))) {}

const Text* Value::text() const {
  const auto* pointer = std::get_if<std::shared_ptr<const Text>>(&variant);
  return pointer ? pointer->get() : nullptr;
}
const List* Value::list() const {
  const auto* pointer = std::get_if<std::shared_ptr<const List>>(&variant);
  return pointer ? pointer->get() : nullptr;
}
const Dict* Value::dict() const {
  const auto* pointer = std::get_if<std::shared_ptr<const Dict>>(&variant);
  return pointer ? pointer->get() : nullptr;
}
Namespace* Value::space() const {
  const auto* pointer = std::get_if<std::shared_ptr<Namespace>>(&variant);
  return pointer ? pointer->get() : nullptr;
}
const Callable* Value::callable() const {
  const auto* pointer = std::get_if<std::shared_ptr<const Callable>>(&variant);
  return pointer ? pointer->get() : nullptr;
}
std::optional<int64_t> Value::integer() const {
  if (const bool* flag = std::get_if<bool>(&variant)) return *flag ? 1 : 0;
  if (const int64_t* integer = std::get_if<int64_t>(&variant)) return *integer;
  return std::nullopt;
}
std::optional<__int128> Value::exact_integer() const {
  if (const auto* large = std::get_if<LargeInteger>(&variant)) return large->value;
  return integer();
}
std::optional<double> Value::number() const {
  if (const auto* large = std::get_if<LargeInteger>(&variant)) return static_cast<double>(large->value);
  if (const double* real = std::get_if<double>(&variant)) return *real;
  if (const auto whole = integer()) return static_cast<double>(*whole);
  return std::nullopt;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    const Text* text = name.text();
    if (text && text->bytes == key) return &value;
  }
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  if (const Text* text = key.text()) return find(text->bytes);
  for (const auto& [name, value] : entries) {
    const auto exact = name.exact_integer(), wanted = key.exact_integer();
    const auto a = name.number(), b = key.number();
    const bool same = exact && wanted ? *exact == *wanted : a && b && *a == *b;
    if (same || (name.is_none() && key.is_none())) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  if (const Value* known = find(key)) {
    const_cast<Value&>(*known) = std::move(value);
  } else {
    entries.emplace_back(std::move(key), std::move(value));
  }
}

void refuse(const Budget& budget, const std::string& reason) { fail(budget.line, reason); }

const char* type_name(const Value& value) {
  static constexpr const char* names[] = {"Undefined", "NoneType", "bool",      "int",      "float", "str",
                                          "list",      "dict",     "Namespace", "function", "loop",  "int"};
  if (const List* list = value.list()) {
    return list->kind == List::Kind::list ? "list" : list->kind == List::Kind::tuple ? "tuple" : "generator";
  }
  return names[value.variant.index()];
}

bool truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const auto number = value.number()) return *number != 0;
  if (const Text* text = value.text()) return !text->bytes.empty();
  if (const List* list = value.list()) return list->kind == List::Kind::generator || !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return true;
}

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (const Text* left = a.text(), *right = b.text(); left && right) {
    budget.spend(std::min(left->bytes.size(), right->bytes.size()) / bytes_per_step);
    return left->bytes == right->bytes;
  }
  if (const auto left = a.exact_integer(), right = b.exact_integer(); left && right) return *left == *right;
  if (const auto left = a.number(), right = b.number(); left && right) return *left == *right;
  if (const List* left = a.list(), *right = b.list(); left && right) {
    if (left->kind != right->kind || left->items.size() != right->items.size()) return false;
    for (size_t i = 0; i < left->items.size(); ++i) {
      if (!equal(left->items[i], right->items[i], budget)) return false;
    }
    return true;
  }
  if (const Dict* left = a.dict(), *right = b.dict(); left && right) {
    if (left->entries.size() != right->entries.size()) return false;
    for (const auto& [key, value] : left->entries) {
      budget.spend(right->entries.size());
      const Value* other = right->find(key);
      if (!other || !equal(value, *other, budget)) return false;
    }
    return true;
  }
  if (a.space() || b.space()) return a.space() == b.space();
  if (a.callable() || b.callable()) return a.callable() == b.callable();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (const Text* left = a.text(), *right = b.text(); left && right) return left->bytes < right->bytes;
  if (const auto left = a.exact_integer(), right = b.exact_integer(); left && right) return *left < *right;
  if (const auto left = a.number(), right = b.number(); left && right) return *left < *right;
  if (const List* left = a.list(), *right = b.list(); left && right && left->kind == right->kind) {
    for (size_t i = 0; i < std::min(left->items.size(), right->items.size()); ++i) {
      if (!equal(left->items[i], right->items[i], budget)) return less(left->items[i], right->items[i], budget);
    }
    return left->items.size() < right->items.size();
  }
  refuse(budget, std::string("values of type ") + type_name(a) + " and " + type_name(b) + " have no order");
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (const Text* text = container.text()) {
    const Text* part = item.text();
    if (!part) refuse(budget, std::string("'in <string>' needs a string, not ") + type_name(item));
    budget.spend(text->bytes.size() / bytes_per_step + 1);
    return find_text(text->bytes, part->bytes, 0) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    budget.spend(dict->entries.size());
    return dict->find(item) != nullptr;
  }
  if (const List* list = container.list()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& value) { return equal(value, item, budget); });
  }
  if (container.is_undefined()) return false;
  refuse(budget, std::string("a value of type ") + type_name(container) + " contains nothing");
}

int64_t length_of(const Value& value, Budget& budget) {
  if (const Text* text = value.text()) {
    budget.spend(text->bytes.size() / bytes_per_step);
    return static_cast<int64_t>(character_count(text->bytes));
  }
  if (const List* list = value.list(); list && list->kind != List::Kind::generator)
    return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->entries.size());
  if (value.is_undefined()) return 0;
  refuse(budget, std::string("a value of type ") + type_name(value) + " has no length");
}

std::vector<Value> items_of(const Value& iterable, Budget& budget) {
  std::vector<Value> items;
  if (const List* list = iterable.list()) {
    budget.spend(list->items.size());
    return list->items;
  }
  if (const Dict* dict = iterable.dict()) {
    budget.spend(dict->entries.size());
    for (const auto& entry : dict->entries) items.push_back(entry.first);
  } else if (const Text* text = iterable.text()) {
    budget.spend(text->bytes.size());
    for (size_t at = 0; at < text->bytes.size();) {
      const size_t end = at + code_point_length(text->bytes[at]);
      items.emplace_back(text->slice(at, end));
      at = end;
    }
  } else if (!iterable.is_undefined()) {
    refuse(budget, std::string("a value of type ") + type_name(iterable) + " cannot be iterated over");
  }
  return items;
}

}  // namespace lathe::data::jinja
