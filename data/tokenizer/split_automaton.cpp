#include "data/tokenizer/split_automaton.h"

#include <algorithm>
#include <utility>

#include "data/tokenizer/utf8.h"

namespace lathe::data {
namespace {

// "a+b" reads a text of a's to its end from every one of them: PCRE2, whose steps are counted, is to say that.
constexpr size_t most_in_vain = 10'000'000;

}  // namespace

SplitAutomaton::SplitAutomaton(PatternProgram program)
    : program_(std::move(program)),
      sets_(program_.sets),
      pages_(page_count),
      table_(new Entry[most_states * most_classes]),  // not initialised: most of it is never touched
      classes_(2),
      states_(1),
      filled_(1) {
  State start;
  std::vector<bool> seen(program_.steps.size());
  open(program_.start, seen, start);
  place_of(std::move(start));
  const Page& first = add_page(0);
  std::copy_n(first.begin(), ascii_.size(), ascii_.begin());
}

SplitAutomaton::~SplitAutomaton() = default;

SplitAutomaton::Found SplitAutomaton::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  const Entry* const table = table_.get();
  constexpr Entry start = most_classes;
  size_t in_vain = 0;
  for (; from < text.size(); from += code_point_length(text[from])) {
    size_t last = 0;
    Entry entry = start;
    size_t before = from;
    for (size_t position = from; (entry & place_bits) != 0;) {
      before = position;
      const uint8_t character_class = position < text.size() ? class_of(text, position) : text_end;
      entry = table[(entry & place_bits) + character_class];
      if (entry & matched) last = before;
    }
    if (entry & overflow) return Found::too_large;
    if (last != 0) {
      begin = from;
      end = last;
      return Found::match;
    }
    in_vain += before - from;
    if (in_vain > most_in_vain) return Found::too_large;
  }
  return Found::nothing;
}

inline uint8_t SplitAutomaton::class_of(std::string_view text, size_t& position) const {
  const auto byte = static_cast<unsigned char>(text[position]);
  if (byte < ascii_.size()) {
    ++position;
    return ascii_[byte];
  }
  const char32_t c = next_code_point(text, position);
  const Page* page = pages_[c / CharacterSets::page_size].load(std::memory_order_acquire);
  if (page == nullptr) page = &add_page(c / CharacterSets::page_size);
  return (*page)[c % CharacterSets::page_size];
}

const SplitAutomaton::Page& SplitAutomaton::add_page(size_t page) const {
  const std::lock_guard lock(growing_);
  if (const Page* known = pages_[page].load(std::memory_order_relaxed)) return *known;
  const auto members = sets_.members_of_page(static_cast<char32_t>(page));
  auto made = std::make_unique<Page>();
  for (size_t i = 0; i < made->size(); ++i) (*made)[i] = class_with(members[i]);
  fill_table();
  owned_pages_.push_back(std::move(made));
  pages_[page].store(owned_pages_.back().get(), std::memory_order_release);
  return *owned_pages_.back();
}

uint8_t SplitAutomaton::class_with(uint64_t members) const {
  const auto known = std::find(classes_.begin() + no_room + 1, classes_.end(), members);
  if (known != classes_.end()) return static_cast<uint8_t>(known - classes_.begin());
  if (classes_.size() == most_classes) return no_room;
  classes_.push_back(members);
  return static_cast<uint8_t>(classes_.size() - 1);
}

// States that come up on the way are filled in their turn.
void SplitAutomaton::fill_table() const {
  for (size_t state = 1; state < states_.size(); ++state)
    for (; filled_[state] < classes_.size(); ++filled_[state])
      table_[state * most_classes + filled_[state]] = transition(State(states_[state]), filled_[state]);
}

// What a step that looks ahead says is known only now, with the character's class.
SplitAutomaton::Entry SplitAutomaton::transition(const State& state, size_t character_class) const {
  if (character_class == no_room) return overflow;
  const bool ended = character_class == text_end;
  const auto has = [&](uint32_t set) { return !ended && (classes_[character_class] >> set & 1) != 0; };
  State next;
  std::vector<bool> seen(program_.steps.size()), seen_next(program_.steps.size());
  std::vector<uint32_t> waiting(state.rbegin(), state.rend());
  while (!waiting.empty()) {
    const PatternStep& step = program_.steps[waiting.back()];
    waiting.pop_back();
    switch (step.kind) {
      case PatternStep::Kind::match: return static_cast<Entry>(place_of(std::move(next)) | matched);
      case PatternStep::Kind::character:
        if (has(step.set)) open(step.next, seen_next, next);
        break;
      case PatternStep::Kind::fork: break;  // open() leaves none
      case PatternStep::Kind::expect:
      case PatternStep::Kind::expect_not: {
        if (has(step.set) != (step.kind == PatternStep::Kind::expect)) break;
        State opened;
        open(step.next, seen, opened);
        waiting.insert(waiting.end(), opened.rbegin(), opened.rend());
        break;
      }
    }
  }
  return place_of(std::move(next));
}

SplitAutomaton::Entry SplitAutomaton::place_of(State state) const {
  if (state.empty()) return 0;
  const auto known = state_places_.find(state);
  if (known != state_places_.end()) return known->second;
  if (states_.size() == most_states) return overflow;
  const auto place = static_cast<Entry>(states_.size() * most_classes);
  state_places_.emplace(state, place);
  states_.push_back(std::move(state));
  filled_.push_back(0);
  return place;
}

// Appends the steps that can be taken at once from `step`, the preferred first; behind one that matches none counts.
void SplitAutomaton::open(uint32_t step, std::vector<bool>& seen, State& state) const {
  std::vector<uint32_t> waiting{step};
  const auto matches = [&] { return !state.empty() && program_.steps[state.back()].kind == PatternStep::Kind::match; };
  while (!waiting.empty() && !matches()) {
    const uint32_t at = waiting.back();
    waiting.pop_back();
    if (seen[at]) continue;
    seen[at] = true;
    if (program_.steps[at].kind == PatternStep::Kind::fork) {
      waiting.push_back(program_.steps[at].other);
      waiting.push_back(program_.steps[at].next);
    } else {
      state.push_back(at);
    }
  }
}

}  // namespace lathe::data
