// Which tokens of which sequences run in the next step, and on which pages.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string_view>
#include <vector>

#include "serve/engine/page_pool.h"
#include "serve/engine/prefix_cache.h"
#include "serve/engine/sequence.h"
#include "serve/engine/state_slots.h"

namespace lathe::engine {

struct SchedulerOptions {
  int64_t page_size = 16;
  int64_t pages = 0;
  int64_t max_sequences = 64;         // running at once
  int64_t max_tokens_per_step = 512;  // decode tokens first, the rest goes to prefill in chunks
  bool enable_prefix_caching = true;
  int64_t num_speculative_tokens = 0;  // guesses beside a decoded token at most; none with states
  int64_t states = 0;                  // of sequences and of pages, where the model's layers keep one of each sequence
};

// `tokens` tokens of `sequence`, from position sequence->cached on, and after its last one sequence->guesses. The step
// that reaches the last token samples, and after each guess again.
struct ScheduledSequence {
  Sequence* sequence = nullptr;
  int64_t tokens = 0;
  int64_t rows() const { return tokens + static_cast<int64_t>(sequence->guesses.size()); }
  bool reaches_end() const { return sequence->cached + tokens == sequence->length(); }
  bool samples() const { return reaches_end() && !sequence->request.pooling; }
};

struct PageCopy {
  int32_t from = 0, to = 0;
  Sequence* sequence = nullptr;  // whose page `to` is
};

struct StateCopy {
  int32_t from = 0, to = 0;
  Sequence* sequence = nullptr;  // whose state `to` is; null where it is a page's
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // ResourceError for a sequence that all pages together would not hold.
  void add(Sequence sequence);
  bool idle() const { return waiting_.empty() && running_.empty(); }

  // Running sequences come first, in order of priority and age; then waiting ones as long as tokens, places and pages
  // last. Every running sequence that decodes keeps its token: chunks of prompts share what is left. When a running
  // sequence finds no page, the last of them is put back to wait and will be computed again; so is a running sequence
  // of a lower priority when a waiting one finds no room.
  //
  // Where few sequences run, those that decode get guesses, as many as tokens and pages are left over for.
  //
  // A waiting sequence starts with the pages that hold its beginning, and with a copy of the page where one that runs
  // has computed some of what comes next. While a running sequence is about to compute at least half of what is
  // missing, it waits for that: of many that begin the same, one computes the beginning.
  //
  // With states a sequence starts after the last known page that has one; a prompt's chunks end where its last whole
  // page does, and where it leaves the pages that are known, so that there is a state to start from the next time.
  std::vector<ScheduledSequence> schedule();

  // Pages to copy before the scheduled tokens run, in this order; then one of the two must be told.
  const std::vector<PageCopy>& copies() const { return copies_; }
  // To be made in this order, once the step is scheduled and before it runs.
  const std::vector<StateCopy>& state_copies() const { return state_copies_; }
  void copied();
  void copying_failed();  // the sequences wait again

  // The step has failed somewhere in between: sequences with states, which it may have changed, wait to be computed
  // again.
  void step_failed(std::span<const ScheduledSequence> scheduled);
  // The step has computed the next `tokens` tokens of a sequence.
  void advance(Sequence& sequence, int64_t tokens);
  void finish(Sequence* sequence);
  bool cancel(RequestId id);  // false where there is no such sequence

  // No later sequence finds what has been computed so far.
  void forget_prefixes();
  // The same for an adapter that no sequence uses.
  void forget_prefixes_of_adapter(std::string_view adapter);

  int64_t running_count() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting_count() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t requests_of_adapter(std::string_view adapter) const;
  // Of the pages that belong to a sequence, the tokens' places that hold none: the ends of last pages, between steps.
  int64_t slots_empty() const;
  int64_t preemptions() const { return preemptions_; }
  const PagePool& pool() const { return pool_; }

 private:
  // What a waiting sequence need not compute: its first pages, and the first tokens of a page to copy.
  struct KnownBeginning {
    std::vector<int32_t> pages;
    int32_t copied_page = -1;
    int64_t copied_tokens = 0;
    int64_t known_tokens = 0;     // of pages, which go on beyond the last that has a state
    bool more_is_coming = false;  // enough to wait for it
  };
  KnownBeginning known_beginning(const Sequence& sequence) const;
  int64_t coming_tokens(const Sequence& other, int64_t found, int64_t common) const;
  bool has_states() const { return options_.states > 0; }
  bool take_state(Sequence& sequence, const KnownBeginning& known);
  void remember_state(Sequence& sequence);
  void forget(int32_t page);
  bool start(Sequence& sequence, const KnownBeginning& known, int64_t most_tokens);
  int64_t pages_for(int64_t tokens) const { return (tokens + options_.page_size - 1) / options_.page_size; }
  bool reserve(Sequence& sequence, int64_t length);
  void release_pages(Sequence& sequence);
  void make_room_for_priority();
  int64_t guess(Sequence& sequence, int64_t most);
  void schedule_running(std::vector<ScheduledSequence>& scheduled, int64_t& budget);
  void schedule_waiting(std::vector<ScheduledSequence>& scheduled, int64_t& budget);
  void wait(std::list<Sequence>& from, std::list<Sequence>::iterator sequence);
  void preempt_last();
  void wait_again(const Sequence* sequence);  // nothing where it does not run

  SchedulerOptions options_;
  PagePool pool_;
  PrefixCache prefixes_;
  std::list<Sequence> waiting_, running_;  // each in the order of Sequence::before
  std::vector<PageCopy> copies_;           // each owns its `from` meanwhile
  StateSlots states_;
  std::vector<StateCopy> state_copies_;
  int64_t preemptions_ = 0;
};

}  // namespace lathe::engine
