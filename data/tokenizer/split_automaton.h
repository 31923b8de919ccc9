// The patterns that cut texts into words as deterministic automata: one table look-up for a character, where PCRE2's
// machine code, which tries alternative after alternative, takes half of a tokenizer's time. Matches are the same: of
// the first place, and there by the alternatives' order.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "data/tokenizer/character_sets.h"
#include "data/tokenizer/pattern_program.h"

namespace lathe::data {

// Characters that are in the same sets are one class; a state is the steps of the program that are open, by their rank.
// Which classes there are is found out as texts bring characters of new pages (256 neighbours), under a lock: until
// then a reader sees neither the page nor what was added to the table for it.
class SplitAutomaton {
 public:
  explicit SplitAutomaton(PatternProgram program);
  ~SplitAutomaton();

  enum class Found { match, nothing, too_large };  // the last: the table has no room, or the search takes too long
  // The next match at or after `from` in valid UTF-8. No match is empty.
  Found find(std::string_view text, size_t from, size_t& begin, size_t& end) const;

 private:
  // What a state does with a class: the next state's place in the table, 0 for none, and in the lowest bits, which
  // such a place leaves free:
  using Entry = uint16_t;
  static constexpr Entry matched = 1;   // a match ends before this character
  static constexpr Entry overflow = 2;  // there was no room
  static constexpr size_t most_classes = 64, most_states = 1024;
  static constexpr Entry place_bits = static_cast<Entry>(~(most_classes - 1));
  static constexpr size_t page_count = 0x110000 / CharacterSets::page_size;
  static constexpr uint8_t text_end = 0, no_room = 1;  // classes; then those of characters
  using Page = std::array<uint8_t, CharacterSets::page_size>;
  using State = std::vector<uint32_t>;

  uint8_t class_of(std::string_view text, size_t& position) const;
  const Page& add_page(size_t page) const;
  uint8_t class_with(uint64_t members) const;
  void fill_table() const;
  Entry transition(const State& state, size_t character_class) const;
  Entry place_of(State state) const;
  void open(uint32_t step, std::vector<bool>& seen, State& state) const;

  PatternProgram program_;
  CharacterSets sets_;
  std::array<uint8_t, 128> ascii_;
  // What grows while texts are read; the pages and the table's entries never change once they are seen.
  mutable std::vector<std::atomic<const Page*>> pages_;
  mutable std::unique_ptr<Entry[]> table_;
  mutable std::mutex growing_;
  mutable std::vector<std::unique_ptr<const Page>> owned_pages_;
  mutable std::vector<uint64_t> classes_;  // the sets of each class
  mutable std::vector<State> states_;      // by place / most_classes
  mutable std::vector<size_t> filled_;     // classes of each state that the table has
  mutable std::map<State, Entry> state_places_;
};

}  // namespace lathe::data
