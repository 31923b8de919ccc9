// A grammar as a deterministic automaton, made as far as it is walked. A state is a set of places in the grammar, each
// with the rules to return to; states are numbered as they are found. One thread's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "serve/engine/grammar/grammar.h"

namespace lathe::engine {

class Automaton {
 public:
  explicit Automaton(std::shared_ptr<const Grammar> grammar);

  static constexpr int32_t dead = -1;  // no text goes on from here
  int32_t start() const { return start_; }
  int32_t next(int32_t state, uint8_t byte);
  bool accepts(int32_t state) const { return states_[static_cast<size_t>(state)].accepts; }
  int64_t places(int32_t state) const {
    return static_cast<int64_t>(states_[static_cast<size_t>(state)].places.size());
  }
  size_t state_count() const { return states_.size(); }
  // Forgets every state: numbers from before mean nothing.
  void reset();

 private:
  static constexpr int32_t unknown = -2, no_caller = -1;
  struct Place {
    int32_t state;   // of the grammar
    int32_t caller;  // in callers_, or no_caller in the root
    auto operator<=>(const Place&) const = default;
  };
  struct Caller {
    int32_t returns_to;  // a state of the grammar
    int32_t caller;      // of that one
    int32_t nesting;
  };
  struct State {
    std::vector<Place> places;  // ascending: those that take a byte
    bool accepts = false;
    std::array<int32_t, 256> next;
  };
  int32_t number_of(std::vector<Place> reached);
  int32_t caller_of(int32_t returns_to, int32_t caller);
  int32_t nesting_of(int32_t caller) const {
    return caller == no_caller ? 0 : callers_[static_cast<size_t>(caller)].nesting;
  }

  std::shared_ptr<const Grammar> grammar_;
  std::vector<State> states_;
  std::vector<Caller> callers_;
  std::map<std::pair<int32_t, int32_t>, int32_t> caller_numbers_;
  std::map<std::pair<std::vector<Place>, bool>, int32_t> numbers_;  // by places and whether it accepts
  int32_t start_ = dead;
};

}  // namespace lathe::engine
