// What a text may be, as a network of states over bytes: edges take a byte of a range, nothing, or a whole rule (a
// network of its own, which may lead back to itself). Made for a request, immutable afterwards: any thread may make
// one. automaton.h walks it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe::engine {

// Rules within rules, which for JSON is twice as deep as values nest. A rule that would go deeper is not entered.
inline constexpr int32_t most_rule_nesting = 200;

class Grammar {
 public:
  struct Edge {
    enum Kind : uint8_t { bytes, nothing, rule } kind;
    uint8_t low = 0, high = 0;  // of bytes
    int32_t rule_number = 0;
    int32_t target = 0;
  };
  struct State {
    std::vector<Edge> edges;
    bool ends_rule = false;
    // How many rules deep the easiest way from here to the end of the rule goes; no_way where there is none.
    int32_t nesting = 0;
  };
  static constexpr int32_t no_way = INT32_MAX;

  const State& state(int32_t number) const { return states_[static_cast<size_t>(number)]; }
  int32_t start_of(int32_t rule) const { return rule_starts_[static_cast<size_t>(rule)]; }
  int32_t root() const { return 0; }  // a rule
  // Two grammars of the same source are the same.
  const std::string& source() const { return source_; }
  // The ranges of bytes, both ends included, that some place of an answer takes one of.
  const std::set<std::pair<uint8_t, uint8_t>>& byte_ranges() const { return byte_ranges_; }
  // Tokens that are no text, as the vocabulary spells them, and yet have a place in it. In the network the byte
  // first_control_byte + i, which no UTF-8 has, stands for the i-th.
  const std::vector<std::string>& control_tokens() const { return control_tokens_; }
  static constexpr uint8_t first_control_byte = 0xF8;

 private:
  friend class GrammarBuilder;
  std::vector<State> states_;
  std::vector<int32_t> rule_starts_;
  std::string source_;
  std::set<std::pair<uint8_t, uint8_t>> byte_ranges_;
  std::vector<std::string> control_tokens_;
};

// ConfigError names what cannot be understood, what is not supported, and what would take more than the states that a
// grammar may have.

// JSON that satisfies the schema (draft 2020-12). Properties come in the schema's order; where additionalProperties is
// not given there are none beside `properties`. Known are
//   type, enum, const, anyOf; $ref within the schema, recursive too; allOf with one schema; oneOf of schemas that
//     exclude each other at a glance: different types, or different constants of a property that both require
//   properties, required, additionalProperties
//   items, minItems, maxItems; prefixItems where these are all
//   minLength, maxLength, or pattern, or format: date, time, date-time, uuid, ipv4, email
//   minimum, maximum, exclusiveMinimum, exclusiveMaximum; of a number inclusive integers alone
// and annotations (title, description, default, …).
std::shared_ptr<const Grammar> json_schema_grammar(const nlohmann::ordered_json& schema);
// Any JSON object.
std::shared_ptr<const Grammar> json_object_grammar();

// A function that an answer may call, with the schema of its arguments, an object.
struct CallableFunction {
  std::string name;
  const nlohmann::ordered_json* parameters = nullptr;
};
// How a model writes a call's arguments where they are no JSON object: each name between `open` and `after_name`, then
// its value up to `close`, strings as they are, all others as JSON. The value ends where `mark`, the part of `close`
// that begins with its only '<', comes first.
struct MemberForm {
  std::string open = {}, after_name = {}, close = {};
  std::string_view mark() const {
    return std::string_view(close).substr(close.find('<')).substr(0, close.find('>') + 1 - close.find('<'));
  }
};
// How a model writes calls: `first`, calls with `between` two of them, `last`; a call is `open`, the function's name,
// `after_name`, its arguments, `close`. Of these texts, what is in `control_tokens` is such a token.
struct CallForm {
  std::string first = {}, open = {}, after_name = {}, close = {}, between = {}, last = {};
  std::optional<MemberForm> members = {};
  std::vector<std::string> control_tokens = {};
};
// One call of one of the functions, or any number from one on; arguments as their schemas say.
enum class CallCount { one, one_or_more };
// ConfigError where MemberForm cannot write what a schema wants: an object without names of its members, a string that
// must match a pattern or have a length.
std::shared_ptr<const Grammar> function_calls_grammar(std::span<const CallableFunction> functions, const CallForm& form,
                                                      CallCount count);
// A text that the expression matches from its beginning to its end: Python's re without look-around, back references
// and word boundaries.
std::shared_ptr<const Grammar> regex_grammar(std::string_view pattern);
// One of these texts.
std::shared_ptr<const Grammar> choice_grammar(std::span<const std::string> choices);

// Parts of a network: each is entered at `start` and left at `end`.
class GrammarBuilder {
 public:
  struct Part {
    int32_t start = 0, end = 0;
  };
  // `key` names what is wrong in errors.
  explicit GrammarBuilder(std::string key);

  int32_t new_state();
  Part empty();
  Part byte_range(uint8_t low, uint8_t high);
  Part text(std::string_view bytes);
  Part control_token(const std::string& spelling);
  Part call(int32_t rule);
  Part sequence(std::span<const Part> parts);
  Part sequence(std::initializer_list<Part> parts) { return sequence(std::span(parts.begin(), parts.size())); }
  Part any_of(std::span<const Part> parts);
  Part any_of(std::initializer_list<Part> parts) { return any_of(std::span(parts.begin(), parts.size())); }
  Part optional(Part part);
  // least … most times what `make` makes, each time anew; most < 0: without end.
  Part repeat(int64_t least, int64_t most, const std::function<Part()>& make);
  void link(int32_t from, int32_t to);

  // A rule may be called before it is defined. The first one is the root.
  int32_t new_rule();
  void define(int32_t rule, Part part);

  // A call of the rule of that name, which `make` defines the first time.
  Part call(const std::string& name, const std::function<Part()>& make);

  // ConfigError where no text satisfies the root, or a rule calls itself before it has taken a byte.
  std::shared_ptr<const Grammar> finish(std::string source);

  [[noreturn]] void fail(const std::string& reason) const;

 private:
  void find_ways();
  void refuse_left_recursion() const;
  std::vector<int32_t> called_at_once(int32_t rule) const;

  std::string key_;
  std::shared_ptr<Grammar> grammar_;
  std::map<std::string, int32_t> named_rules_;
};

}  // namespace lathe::engine
