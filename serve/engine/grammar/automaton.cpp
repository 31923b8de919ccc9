#include "serve/engine/grammar/automaton.h"

#include <algorithm>
#include <set>

namespace lathe::engine {

Automaton::Automaton(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) { reset(); }

void Automaton::reset() {
  states_.clear();
  callers_.clear();
  caller_numbers_.clear();
  numbers_.clear();
  start_ = number_of({{grammar_->start_of(grammar_->root()), no_caller}});
}

int32_t Automaton::next(int32_t state, uint8_t byte) {
  const State& from = states_[static_cast<size_t>(state)];
  if (from.next[byte] != unknown) return from.next[byte];
  std::vector<Place> reached;
  for (const Place& place : from.places)
    for (const Grammar::Edge& edge : grammar_->state(place.state).edges)
      if (edge.kind == Grammar::Edge::bytes && edge.low <= byte && byte <= edge.high)
        reached.push_back({edge.target, place.caller});
  const int32_t number = number_of(std::move(reached));
  states_[static_cast<size_t>(state)].next[byte] = number;
  return number;
}

// The state of everything that can be reached from these places without a byte. Only places from which the end can be
// reached within the nesting that is allowed are entered, so that every state goes on or accepts.
int32_t Automaton::number_of(std::vector<Place> reached) {
  std::set<Place> seen;
  State state;
  const auto enter = [&](int32_t target, int32_t caller) {
    const int32_t nesting = grammar_->state(target).nesting;
    if (nesting <= most_rule_nesting - nesting_of(caller)) reached.push_back({target, caller});
  };
  std::vector<Place> entered = std::move(reached);
  reached.clear();
  for (const Place& place : entered) enter(place.state, place.caller);
  while (!reached.empty()) {
    const Place place = reached.back();
    reached.pop_back();
    if (!seen.insert(place).second) continue;
    const Grammar::State& here = grammar_->state(place.state);
    bool takes_a_byte = false;
    for (const Grammar::Edge& edge : here.edges) {
      if (edge.kind == Grammar::Edge::bytes) takes_a_byte = true;
      if (edge.kind == Grammar::Edge::nothing) enter(edge.target, place.caller);
      if (edge.kind != Grammar::Edge::rule) continue;
      const int32_t after = grammar_->state(edge.target).nesting;
      const int32_t inside = grammar_->state(grammar_->start_of(edge.rule_number)).nesting;
      const int32_t left = most_rule_nesting - nesting_of(place.caller);
      if (after <= left && inside <= left - 1)
        enter(grammar_->start_of(edge.rule_number), caller_of(edge.target, place.caller));
    }
    if (takes_a_byte) state.places.push_back(place);
    if (!here.ends_rule) continue;
    if (place.caller == no_caller) {
      state.accepts = true;
    } else {
      const Caller& caller = callers_[static_cast<size_t>(place.caller)];
      enter(caller.returns_to, caller.caller);
    }
  }
  if (state.places.empty() && !state.accepts) return dead;
  std::sort(state.places.begin(), state.places.end());
  const auto [known, is_new] =
      numbers_.try_emplace({state.places, state.accepts}, static_cast<int32_t>(states_.size()));
  if (is_new) {
    state.next.fill(unknown);
    states_.push_back(std::move(state));
  }
  return known->second;
}

int32_t Automaton::caller_of(int32_t returns_to, int32_t caller) {
  const auto [known, is_new] = caller_numbers_.try_emplace({returns_to, caller}, static_cast<int32_t>(callers_.size()));
  if (is_new) callers_.push_back({returns_to, caller, nesting_of(caller) + 1});
  return known->second;
}

}  // namespace lathe::engine
