#include "serve/engine/grammar/grammar.h"

#include <algorithm>

#include "core/error.h"

namespace lathe::engine {
namespace {

// Enough for schemas of many pages; a step over all of them stays within milliseconds.
constexpr size_t most_states = 50'000;

}  // namespace

using Edge = Grammar::Edge;

GrammarBuilder::GrammarBuilder(std::string key) : key_(std::move(key)), grammar_(std::make_shared<Grammar>()) {}

void GrammarBuilder::fail(const std::string& reason) const { throw ConfigError(key_, reason); }

int32_t GrammarBuilder::new_state() {
  if (grammar_->states_.size() == most_states)
    fail("takes more than the " + std::to_string(most_states) +
         " states that it may: lower its counts (maxLength, maxItems, {m,n}) or split it");
  grammar_->states_.emplace_back();
  return static_cast<int32_t>(grammar_->states_.size()) - 1;
}

void GrammarBuilder::link(int32_t from, int32_t to) {
  grammar_->states_[static_cast<size_t>(from)].edges.push_back({.kind = Edge::nothing, .target = to});
}

GrammarBuilder::Part GrammarBuilder::empty() {
  const int32_t state = new_state();
  return {state, state};
}

GrammarBuilder::Part GrammarBuilder::byte_range(uint8_t low, uint8_t high) {
  const Part part{new_state(), new_state()};
  grammar_->states_[static_cast<size_t>(part.start)].edges.push_back(
      {.kind = Edge::bytes, .low = low, .high = high, .target = part.end});
  grammar_->byte_ranges_.emplace(low, high);
  return part;
}

GrammarBuilder::Part GrammarBuilder::text(std::string_view bytes) {
  Part whole = empty();
  for (const char c : bytes) whole = sequence({whole, byte_range(static_cast<uint8_t>(c), static_cast<uint8_t>(c))});
  return whole;
}

GrammarBuilder::Part GrammarBuilder::control_token(const std::string& spelling) {
  std::vector<std::string>& tokens = grammar_->control_tokens_;
  const auto known = std::ranges::find(tokens, spelling);
  const auto number = static_cast<size_t>(known - tokens.begin());
  if (known == tokens.end()) tokens.push_back(spelling);
  if (number > 0xFF - Grammar::first_control_byte) fail("has more control tokens than there are bytes for");
  const Part part{new_state(), new_state()};
  const auto byte = static_cast<uint8_t>(Grammar::first_control_byte + number);
  grammar_->states_[static_cast<size_t>(part.start)].edges.push_back(
      {.kind = Edge::bytes, .low = byte, .high = byte, .target = part.end});
  return part;
}

GrammarBuilder::Part GrammarBuilder::call(int32_t rule) {
  const Part part{new_state(), new_state()};
  grammar_->states_[static_cast<size_t>(part.start)].edges.push_back(
      {.kind = Edge::rule, .rule_number = rule, .target = part.end});
  return part;
}

GrammarBuilder::Part GrammarBuilder::sequence(std::span<const Part> parts) {
  if (parts.empty()) return empty();
  for (size_t i = 1; i < parts.size(); ++i) link(parts[i - 1].end, parts[i].start);
  return {parts.front().start, parts.back().end};
}

GrammarBuilder::Part GrammarBuilder::any_of(std::span<const Part> parts) {
  const Part whole{new_state(), new_state()};
  for (const Part& part : parts) {
    link(whole.start, part.start);
    link(part.end, whole.end);
  }
  return whole;
}

GrammarBuilder::Part GrammarBuilder::optional(Part part) { return any_of({part, empty()}); }

GrammarBuilder::Part GrammarBuilder::repeat(int64_t least, int64_t most, const std::function<Part()>& make) {
  Part whole = empty();
  for (int64_t i = 0; i < least; ++i) whole = sequence({whole, make()});
  const int32_t end = new_state();
  int32_t last = whole.end;
  if (most < 0) {
    const Part again = make();
    link(last, again.start);
    link(again.end, last);
  }
  for (int64_t i = least; i < most; ++i) {
    link(last, end);
    const Part next = make();
    link(last, next.start);
    last = next.end;
  }
  link(last, end);
  return {whole.start, end};
}

int32_t GrammarBuilder::new_rule() {
  grammar_->rule_starts_.push_back(-1);
  return static_cast<int32_t>(grammar_->rule_starts_.size()) - 1;
}

void GrammarBuilder::define(int32_t rule, Part part) {
  // A state of its own: the part's end may have edges.
  const int32_t end = new_state();
  link(part.end, end);
  grammar_->states_[static_cast<size_t>(end)].ends_rule = true;
  grammar_->rule_starts_[static_cast<size_t>(rule)] = part.start;
}

GrammarBuilder::Part GrammarBuilder::call(const std::string& name, const std::function<Part()>& make) {
  const auto known = named_rules_.find(name);
  if (known != named_rules_.end()) return call(known->second);
  const int32_t rule = new_rule();
  named_rules_.emplace(name, rule);
  define(rule, make());
  return call(rule);
}

std::shared_ptr<const Grammar> GrammarBuilder::finish(std::string source) {
  refuse_left_recursion();
  find_ways();
  if (grammar_->state(grammar_->start_of(0)).nesting > most_rule_nesting) fail("no text satisfies it");
  grammar_->source_ = std::move(source);
  return std::move(grammar_);
}

// The least nesting from each state: states are looked at again when one that they lead to has become easier.
void GrammarBuilder::find_ways() {
  std::vector<Grammar::State>& states = grammar_->states_;
  std::vector<std::vector<int32_t>> before(states.size());  // states whose nesting follows from this one's
  for (size_t s = 0; s < states.size(); ++s) {
    states[s].nesting = Grammar::no_way;
    for (const Edge& edge : states[s].edges) {
      before[static_cast<size_t>(edge.target)].push_back(static_cast<int32_t>(s));
      if (edge.kind == Edge::rule)
        before[static_cast<size_t>(grammar_->start_of(edge.rule_number))].push_back(static_cast<int32_t>(s));
    }
  }
  // In rising order of nesting, as Dijkstra: `now` holds the states of the nesting that is being settled.
  std::vector<int32_t> now;
  for (size_t s = 0; s < states.size(); ++s)
    if (states[s].ends_rule) now.push_back(static_cast<int32_t>(s));
  const auto nesting_through = [&](const Edge& edge) {
    const int32_t after = grammar_->state(edge.target).nesting;
    if (edge.kind != Edge::rule) return after;
    const int32_t inside = grammar_->state(grammar_->start_of(edge.rule_number)).nesting;
    return inside == Grammar::no_way ? Grammar::no_way : std::max(after, inside + 1);
  };
  for (int32_t nesting = 0; nesting <= most_rule_nesting; ++nesting) {
    std::vector<int32_t> next;
    while (!now.empty()) {
      const int32_t number = now.back();
      now.pop_back();
      Grammar::State& state = states[static_cast<size_t>(number)];
      if (state.nesting != Grammar::no_way) continue;
      int32_t found = state.ends_rule ? 0 : Grammar::no_way;
      for (const Edge& edge : state.edges) found = std::min(found, nesting_through(edge));
      if (found == Grammar::no_way) continue;
      if (found > nesting) {
        next.push_back(number);
        continue;
      }
      state.nesting = nesting;
      const auto& more = before[static_cast<size_t>(number)];
      now.insert(now.end(), more.begin(), more.end());
    }
    now = std::move(next);
  }
}

std::vector<int32_t> GrammarBuilder::called_at_once(int32_t rule) const {
  std::vector<int32_t> rules, reached{grammar_->start_of(rule)};
  std::vector<bool> seen(grammar_->states_.size());
  while (!reached.empty()) {
    const int32_t state = reached.back();
    reached.pop_back();
    if (seen[static_cast<size_t>(state)]) continue;
    seen[static_cast<size_t>(state)] = true;
    for (const Edge& edge : grammar_->state(state).edges) {
      if (edge.kind == Edge::rule) rules.push_back(edge.rule_number);
      if (edge.kind == Edge::nothing) reached.push_back(edge.target);
    }
  }
  return rules;
}

// Rules take at least a byte, so that only calls before the first one matter.
void GrammarBuilder::refuse_left_recursion() const {
  const auto rules = static_cast<int32_t>(grammar_->rule_starts_.size());
  std::vector<std::vector<int32_t>> calls;
  for (int32_t rule = 0; rule < rules; ++rule) calls.push_back(called_at_once(rule));
  // Rules without calls to rules that are left, until there are none: what stays leads back to itself.
  std::vector<bool> settled(static_cast<size_t>(rules));
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t rule = 0; rule < settled.size(); ++rule) {
      if (settled[rule]) continue;
      settled[rule] =
          std::ranges::all_of(calls[rule], [&](int32_t other) { return settled[static_cast<size_t>(other)]; });
      changed = changed || settled[rule];
    }
  }
  if (!std::ranges::all_of(settled, std::identity{})) fail("refers to itself without anything in between");
}

std::shared_ptr<const Grammar> choice_grammar(std::span<const std::string> choices) {
  GrammarBuilder builder("choice");
  std::string source = "choice";
  std::vector<GrammarBuilder::Part> parts;
  const int32_t root = builder.new_rule();
  for (const std::string& choice : choices) {
    if (choice.empty()) builder.fail("an empty text is none that could be chosen");
    source += "\n" + std::to_string(choice.size()) + " " + choice;
    parts.push_back(builder.text(choice));
  }
  if (parts.empty()) builder.fail("there is nothing to choose from");
  builder.define(root, builder.any_of(parts));
  return builder.finish(std::move(source));
}

}  // namespace lathe::engine
