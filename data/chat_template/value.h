// Python's values, as far as templates meet them: None, bool, int (64 bits, and unsigned ones that JSON holds), float,
// str, list, tuple, dict, Jinja's Undefined and namespace, and what can be called. All but namespaces are immutable.
#pragma once

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/chat_template/syntax.h"
#include "data/chat_template/text.h"

namespace lathe::data::jinja {

// What a rendering may still use. Every loop over data pays before it runs.
class Budget {
 public:
  explicit Budget(const TemplateLimits& limits);
  void spend(uint64_t steps);
  void check_bytes(size_t bytes);  // of one string; spends for them, too
  int line = 0;                    // of the statement being run, for errors

 private:
  TemplateLimits limits_;
  uint64_t steps_left_;
  uint64_t next_clock_;  // steps_left_ at which to look at the clock
  std::chrono::steady_clock::time_point deadline_;
};

class Value;
struct List;
struct Dict;
struct Namespace;
struct Callable;
struct LoopState;
struct Scope;

struct Undefined {
  std::string name;  // of what was not there
};
struct None {};
// An integer from 2^63 to 2^64 − 1: it is written, compared and passed on, and arithmetic with it is out of range.
struct LargeInteger {
  uint64_t value;
};

class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                               std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                               std::shared_ptr<const Callable>, LoopState*, LargeInteger>;
  Value() : variant(Undefined{}) {}
  Value(None) : variant(None{}) {}
  Value(Undefined undefined) : variant(std::move(undefined)) {}
  template <std::same_as<bool> Bool>  // and no pointer that would turn into one
  Value(Bool value) : variant(value) {}
  Value(int64_t value) : variant(value) {}
  Value(LargeInteger value) : variant(value) {}
  Value(double value) : variant(value) {}
  Value(Text text) : variant(std::make_shared<const Text>(std::move(text))) {}
  Value(std::shared_ptr<const Text> text) : variant(std::move(text)) {}
  Value(List list);
  Value(Dict dict);
  Value(std::shared_ptr<Namespace> space) : variant(std::move(space)) {}
  Value(Callable callable);
  Value(LoopState* loop) : variant(loop) {}

  bool is_undefined() const { return std::holds_alternative<Undefined>(variant); }
  bool is_none() const { return std::holds_alternative<None>(variant); }
  const Text* text() const;
  const List* list() const;  // also tuples and what filters yield
  const Dict* dict() const;
  Namespace* space() const;
  const Callable* callable() const;
  std::optional<int64_t> integer() const;         // of bool and int, unless it is large
  std::optional<__int128> exact_integer() const;  // of bool and any int
  std::optional<double> number() const;           // of bool, int and float

  Variant variant;
};

struct List {
  enum class Kind { list, tuple, generator };
  std::vector<Value> items;
  Kind kind = Kind::list;
  int depth = 0;           // set when it becomes a Value
  bool transient = false;  // holds what must not outlive its scope
  bool group = false;      // one of groupby's tuples: items[0] is also .grouper, items[1] .list
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 0;
  bool transient = false;
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
  void set(Value key, Value value);  // before it becomes a Value
};

// namespace(…), and Jinja's two other objects that change: cycler(…) whose entries are its items, joiner(…) with its
// separator.
struct Namespace {
  enum class Kind { plain, cycler, joiner };
  std::vector<std::pair<std::string, Value>> entries;
  Kind kind = Kind::plain;
  size_t position = 0;  // cycler: the current item; joiner: calls so far, counted to 1
};

struct Callable {
  enum class Kind { global, method, macro, caller } kind;
  std::string name;
  Value receiver;                    // method
  const Statement* macro = nullptr;  // macro, caller
  Scope* scope = nullptr;            // where it was defined
  Value outer_caller;                // caller: what caller() means inside the block
};

// What Python does with values. Errors are ConfigErrors with the budget's line.
[[noreturn]] void refuse(const Budget& budget, const std::string& reason);
const char* type_name(const Value& value);
bool truthy(const Value& value);
bool equal(const Value& a, const Value& b, Budget& budget);
bool less(const Value& a, const Value& b, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);
int64_t length_of(const Value& value, Budget& budget);
std::vector<Value> items_of(const Value& iterable, Budget& budget);
Text text_of(const Value& value, Budget& budget);  // str()
std::string representation_of(const Value& value, Budget& budget);
std::string real_representation(double value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one level's
  std::string item_separator = ", ", key_separator = ": ";
};
Text json_of(const Value& value, const JsonStyle& style, Budget& budget);

// Strings count as inserted, except the role of a message where it is one that models know.
Value value_of(const nlohmann::ordered_json& json, Budget& budget);
Value messages_value(const nlohmann::ordered_json& messages, Budget& budget);

}  // namespace lathe::data::jinja
