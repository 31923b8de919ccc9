#include "serve/engine/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"

namespace lathe::engine {
namespace {

// Sequences that may be passed over in a step because what they need is being computed: a bound on looking.
constexpr int64_t most_passed_over = 64;

// With more sequences a step has rows enough to be busy: a guess costs as much as a token.
constexpr int64_t most_that_guess = 4;

int64_t common_tokens(const Sequence& a, const Sequence& b, int64_t from) {
  const auto first = a.tokens.begin() + from;
  return std::mismatch(first, a.tokens.end(), b.tokens.begin() + from, b.tokens.end()).first - first;
}

// Not beyond the next length whose state is wanted.
int64_t up_to_mark(const Sequence& sequence, int64_t tokens) {
  return sequence.state_marks.empty() ? tokens : std::min(tokens, sequence.state_marks.front() - sequence.cached);
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), pool_(options.pages), prefixes_(options.pages, options.page_size), states_(options.states) {}

void Scheduler::add(Sequence sequence) {
  const int64_t longest = sequence.length() + sequence.request.max_tokens;
  const int64_t needed = pages_for(longest);
  if (needed > options_.pages)
    throw ResourceError("a request of " + std::to_string(longest) + " tokens needs " + std::to_string(needed) +
                        " KV pages of " + std::to_string(options_.page_size) + ", but there are " +
                        std::to_string(options_.pages) +
                        "; shorten the prompt or max_tokens, or give the cache more memory");
  std::list<Sequence> arrived;
  arrived.push_back(std::move(sequence));
  wait(arrived, arrived.begin());
}

std::vector<ScheduledSequence> Scheduler::schedule() {
  std::vector<ScheduledSequence> scheduled;
  int64_t budget = options_.max_tokens_per_step;
  make_room_for_priority();
  const int64_t preemptions_before = preemptions_;
  schedule_running(scheduled, budget);
  // What was just put back would take its pages again.
  if (preemptions_ == preemptions_before) schedule_waiting(scheduled, budget);
  return scheduled;
}

void Scheduler::make_room_for_priority() {
  if (waiting_.empty()) return;
  const Sequence& first = waiting_.front();
  const int64_t pages = pages_for(std::min(first.length(), options_.max_tokens_per_step));
  while (!running_.empty() && first.request.priority < running_.back().request.priority &&
         (running_count() >= options_.max_sequences || pool_.available() < pages))
    preempt_last();
}

void Scheduler::schedule_running(std::vector<ScheduledSequence>& scheduled, int64_t& budget) {
  const auto decoding = std::count_if(running_.begin(), running_.end(), [](const Sequence& sequence) {
    return sequence.length() - sequence.cached == 1;
  });
  int64_t prefill_budget = std::max<int64_t>(0, budget - decoding);
  // A preemption removes from the back of running_, which this loop has not reached, or the sequence it stands at.
  for (auto it = running_.begin(); it != running_.end() && budget > 0;) {
    Sequence& sequence = *it;
    const int64_t missing = sequence.length() - sequence.cached;
    const int64_t tokens = missing == 1 ? 1 : up_to_mark(sequence, std::min({budget, prefill_budget, missing}));
    sequence.guesses.clear();
    while (!reserve(sequence, sequence.cached + tokens)) {
      const bool itself = &running_.back() == &sequence;
      preempt_last();
      if (itself) return;
    }
    ++it;
    if (tokens == 0) continue;
    scheduled.push_back({&sequence, tokens});
    budget -= tokens;
    if (missing > 1) {
      prefill_budget -= tokens;
      continue;
    }
    const int64_t guesses = guess(sequence, std::min(budget, prefill_budget));
    budget -= guesses;
    prefill_budget -= guesses;
  }
}

// Takes guesses for a sequence that decodes, and pages for them; answers how many.
int64_t Scheduler::guess(Sequence& sequence, int64_t most) {
  if (sequence.request.pooling || running_count() > most_that_guess || !sequence.guessing.pays(sequence.length()) ||
      sequence.masks || has_states())
    return 0;
  const int64_t left = sequence.request.max_tokens - static_cast<int64_t>(sequence.output().size()) - 1;
  std::vector<int32_t> guesses = look_up(sequence.tokens, std::min({most, left, options_.num_speculative_tokens}));
  if (guesses.empty() || !reserve(sequence, sequence.length() + static_cast<int64_t>(guesses.size()))) return 0;
  sequence.guesses = std::move(guesses);
  return static_cast<int64_t>(sequence.guesses.size());
}

void Scheduler::schedule_waiting(std::vector<ScheduledSequence>& scheduled, int64_t& budget) {
  int64_t passed_over = 0;
  for (auto it = waiting_.begin(); it != waiting_.end() && budget > 0 && running_count() < options_.max_sequences;) {
    const auto waiting = it++;
    Sequence& sequence = *waiting;
    const KnownBeginning known = known_beginning(sequence);
    if (known.more_is_coming) {
      if (++passed_over == most_passed_over) return;
      continue;
    }
    if (!start(sequence, known, budget)) return;
    const auto place =
        std::find_if(running_.begin(), running_.end(), [&](const Sequence& other) { return sequence.before(other); });
    running_.splice(place, waiting_, waiting);
    const int64_t tokens = up_to_mark(sequence, std::min(budget, sequence.length() - sequence.cached));
    scheduled.push_back({&sequence, tokens});
    budget -= tokens;
  }
}

// A full page is the same page for all that find it, so that a running sequence begins as this one does where it has
// the last of the pages found.
Scheduler::KnownBeginning Scheduler::known_beginning(const Sequence& sequence) const {
  KnownBeginning known;
  if (!options_.enable_prefix_caching || sequence.reads_prompt()) return known;
  // The last token is always computed: what follows it is drawn from its row.
  const int64_t most = sequence.length() - 1;
  known.pages = prefixes_.find(*sequence.scope, std::span(sequence.tokens).first(static_cast<size_t>(most)));
  known.known_tokens = static_cast<int64_t>(known.pages.size()) * options_.page_size;
  while (has_states() && !known.pages.empty() && !states_.contains(known.pages.back())) known.pages.pop_back();
  const auto pages = known.pages.size();
  const int64_t found = static_cast<int64_t>(pages) * options_.page_size;
  int64_t coming = 0;
  for (const Sequence& other : running_) {
    if (!other.shares || other.block_table.size() <= pages || *other.scope != *sequence.scope) continue;
    if (pages > 0 && other.block_table[pages - 1] != known.pages.back()) continue;
    const int64_t common = std::min(common_tokens(sequence, other, found), most - found);
    coming = std::max(coming, coming_tokens(other, found, common));
    if (has_states()) continue;  // a part of a page has none
    const int64_t computed = std::min({common, other.cached - found, options_.page_size});
    if (computed > known.copied_tokens) {
      known.copied_tokens = computed;
      known.copied_page = other.block_table[pages];
    }
  }
  known.more_is_coming = coming - known.copied_tokens >= std::max<int64_t>(1, (most + 1 - found) / 2);
  return known;
}

// Of what another has in common beyond `found` tokens, as much as there will be a state after.
int64_t Scheduler::coming_tokens(const Sequence& other, int64_t found, int64_t common) const {
  if (!has_states()) return common;
  int64_t coming = 0;
  for (const int64_t mark : other.state_marks)
    if (mark <= found + common) coming = std::max(coming, mark - found);
  return coming;
}

// False where there are not enough pages for the first tokens to compute, `most_tokens` at most.
bool Scheduler::start(Sequence& sequence, const KnownBeginning& known, int64_t most_tokens) {
  for (const int32_t page : known.pages) pool_.hold(page);
  sequence.block_table = known.pages;
  sequence.findable = static_cast<int64_t>(known.pages.size());
  sequence.cached = sequence.findable * options_.page_size + known.copied_tokens;
  sequence.shares = true;
  if (known.copied_tokens > 0) pool_.hold(known.copied_page);
  if (has_states() && !take_state(sequence, known)) {
    release_pages(sequence);
    return false;
  }
  if (!reserve(sequence, std::min(sequence.length(), sequence.cached + most_tokens))) {
    if (known.copied_tokens > 0) pool_.release(known.copied_page, PagePool::Afterwards::cached);
    release_pages(sequence);
    return false;
  }
  if (known.copied_tokens > 0)
    copies_.push_back({known.copied_page, sequence.block_table[known.pages.size()], &sequence});
  if (!sequence.prompt_tokens_cached)
    sequence.prompt_tokens_cached = std::min(sequence.cached, static_cast<int64_t>(sequence.prompt_length));
  return true;
}

// A state of its own, which begins as that of its last known page; false where sequences have all.
bool Scheduler::take_state(Sequence& sequence, const KnownBeginning& known) {
  const int32_t from = known.pages.empty() ? no_state : states_.use(known.pages.back());
  sequence.state = states_.take();
  if (sequence.state == no_state) return false;
  if (from != no_state) state_copies_.push_back({from, sequence.state, &sequence});
  if (!options_.enable_prefix_caching) return true;
  const int64_t last_page =
      (static_cast<int64_t>(sequence.prompt_length) - 1) / options_.page_size * options_.page_size;
  for (const int64_t mark : {std::min(known.known_tokens, last_page), last_page})
    if (mark > sequence.cached && (sequence.state_marks.empty() || mark > sequence.state_marks.back()))
      sequence.state_marks.push_back(mark);
  return true;
}

// Where it has come to a mark.
void Scheduler::remember_state(Sequence& sequence) {
  if (sequence.state_marks.empty() || sequence.cached < sequence.state_marks.front()) return;
  sequence.state_marks.erase(sequence.state_marks.begin());
  const int64_t pages = sequence.cached / options_.page_size;
  if (!sequence.shares || sequence.findable != pages) return;
  const int32_t state = states_.remember(sequence.block_table[static_cast<size_t>(pages) - 1]);
  if (state != no_state) state_copies_.push_back({sequence.state, state, nullptr});
}

void Scheduler::forget(int32_t page) {
  prefixes_.forget(page);
  states_.forget(page);
}

void Scheduler::copied() {
  for (const PageCopy& copy : copies_) {
    const bool cached = prefixes_.contains(copy.from);
    pool_.release(copy.from, cached ? PagePool::Afterwards::cached : PagePool::Afterwards::free);
  }
  copies_.clear();
  state_copies_.clear();
}

void Scheduler::copying_failed() {
  for (const PageCopy& copy : copies_) wait_again(copy.sequence);
  for (const StateCopy& copy : state_copies_) wait_again(copy.sequence);
  states_.forget_pages();  // which of them are what they should be nobody knows
  copied();
}

void Scheduler::wait_again(const Sequence* sequence) {
  const auto found =
      std::find_if(running_.begin(), running_.end(), [&](const Sequence& candidate) { return &candidate == sequence; });
  if (found == running_.end()) return;
  release_pages(*found);
  wait(running_, found);
}

void Scheduler::step_failed(std::span<const ScheduledSequence> scheduled) {
  if (!has_states()) return;
  for (const ScheduledSequence& entry : scheduled) wait_again(entry.sequence);
}

void Scheduler::advance(Sequence& sequence, int64_t tokens) {
  sequence.cached += tokens;
  if (!options_.enable_prefix_caching || !sequence.shares) return;
  for (; (sequence.findable + 1) * options_.page_size <= sequence.cached; ++sequence.findable) {
    const auto index = static_cast<size_t>(sequence.findable);
    const auto size = static_cast<size_t>(options_.page_size);
    int32_t& page = sequence.block_table[index];
    const int32_t parent = index == 0 ? PrefixCache::no_parent : sequence.block_table[index - 1];
    const int32_t known =
        prefixes_.insert(page, parent, std::span(sequence.tokens).subspan(index * size, size), sequence.scope);
    if (known == page) continue;
    // Computed by another at the same time, the same bits: one of the two is enough.
    pool_.hold(known);
    pool_.release(page, PagePool::Afterwards::free);
    page = known;
  }
  remember_state(sequence);
}

void Scheduler::finish(Sequence* sequence) {
  release_pages(*sequence);
  running_.remove_if([sequence](const Sequence& candidate) { return &candidate == sequence; });
}

bool Scheduler::cancel(RequestId id) {
  for (std::list<Sequence>* const sequences : {&running_, &waiting_}) {
    const auto found = std::find_if(sequences->begin(), sequences->end(),
                                    [id](const Sequence& sequence) { return sequence.id == id; });
    if (found == sequences->end()) continue;
    release_pages(*found);
    sequences->erase(found);
    return true;
  }
  return false;
}

void Scheduler::forget_prefixes() {
  for (const int32_t page : prefixes_.pages()) {
    forget(page);
    pool_.forget(page);
  }
  for (Sequence& sequence : running_) {
    sequence.findable = 0;
    sequence.shares = false;
    sequence.state_marks.clear();
  }
}

void Scheduler::forget_prefixes_of_adapter(std::string_view adapter) {
  for (const int32_t page : prefixes_.pages_of_adapter(adapter)) {
    forget(page);
    pool_.forget(page);
  }
}

int64_t Scheduler::requests_of_adapter(std::string_view adapter) const {
  int64_t count = 0;
  for (const std::list<Sequence>* const sequences : {&running_, &waiting_})
    count += std::count_if(sequences->begin(), sequences->end(),
                           [adapter](const Sequence& sequence) { return sequence.adapter() == adapter; });
  return count;
}

int64_t Scheduler::slots_empty() const {
  int64_t slots = 0;  // pages that sequences share are full, so that each place is counted once
  for (const Sequence& sequence : running_)
    slots += static_cast<int64_t>(sequence.block_table.size()) * options_.page_size - sequence.cached;
  return slots;
}

bool Scheduler::reserve(Sequence& sequence, int64_t length) {
  const int64_t needed = pages_for(length);
  if (needed - static_cast<int64_t>(sequence.block_table.size()) > pool_.available()) return false;
  while (static_cast<int64_t>(sequence.block_table.size()) < needed) {
    const int32_t page = pool_.take();
    forget(page);
    sequence.block_table.push_back(page);
  }
  return true;
}

// The last page first: the later part of a prefix is given up before the earlier one.
void Scheduler::release_pages(Sequence& sequence) {
  for (auto index = static_cast<int64_t>(sequence.block_table.size()) - 1; index >= 0; --index) {
    const bool cached = index < sequence.findable;
    pool_.release(sequence.block_table[static_cast<size_t>(index)],
                  cached ? PagePool::Afterwards::cached : PagePool::Afterwards::free);
  }
  if (sequence.state != no_state) states_.release(std::exchange(sequence.state, no_state));
  sequence.state_marks.clear();
  sequence.block_table.clear();
  sequence.guesses.clear();
  sequence.cached = sequence.findable = 0;
}

// Moves a sequence to its place among those that wait.
void Scheduler::wait(std::list<Sequence>& from, std::list<Sequence>::iterator sequence) {
  auto place = waiting_.end();  // from the back: most arrive in order
  while (place != waiting_.begin() && sequence->before(*std::prev(place))) --place;
  waiting_.splice(place, from, sequence);
}

void Scheduler::preempt_last() {
  release_pages(running_.back());
  ++preemptions_;
  wait(running_, std::prev(running_.end()));
}

}  // namespace lathe::engine
