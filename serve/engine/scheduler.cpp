#include "serve/engine/scheduler.h"

#include <algorithm>

#include "core/error.h"

namespace lathe::engine {

Scheduler::Scheduler(const SchedulerOptions& options) : options_(options), pool_(options.pages) {}

void Scheduler::add(Sequence sequence) {
  const int64_t longest = static_cast<int64_t>(sequence.request.prompt.size()) + sequence.request.max_tokens;
  const int64_t needed = (longest + options_.page_size - 1) / options_.page_size;
  if (needed > options_.pages)
    throw ResourceError("a request of " + std::to_string(longest) + " tokens needs " + std::to_string(needed) +
                        " KV pages of " + std::to_string(options_.page_size) + ", but there are " +
                        std::to_string(options_.pages) +
                        "; shorten the prompt or max_tokens, or give the cache more memory");
  waiting_.push_back(std::move(sequence));
}

std::vector<ScheduledSequence> Scheduler::schedule() {
  std::vector<ScheduledSequence> scheduled;
  int64_t budget = options_.max_tokens_per_step;
  // A preemption removes from the back of running_, which this loop has not reached, or the sequence it stands at.
  for (auto it = running_.begin(); it != running_.end() && budget > 0;) {
    Sequence& sequence = *it;
    const int64_t tokens = std::min(budget, sequence.length() - sequence.cached);
    bool itself_preempted = false;
    while (!reserve(sequence, sequence.cached + tokens)) {
      itself_preempted = &running_.back() == &sequence;
      if (itself_preempted) ++it;
      preempt_youngest();
      if (itself_preempted) break;
    }
    if (itself_preempted) break;
    scheduled.push_back({&sequence, tokens});
    budget -= tokens;
    ++it;
  }
  while (!waiting_.empty() && budget > 0 && static_cast<int64_t>(running_.size()) < options_.max_sequences) {
    Sequence& sequence = waiting_.front();
    const int64_t tokens = std::min(budget, sequence.length());
    if (!reserve(sequence, tokens)) break;
    running_.push_back(std::move(sequence));
    waiting_.pop_front();
    scheduled.push_back({&running_.back(), tokens});
    budget -= tokens;
  }
  return scheduled;
}

void Scheduler::finish(Sequence* sequence) {
  pool_.give_back(sequence->block_table);
  running_.remove_if([sequence](const Sequence& candidate) { return &candidate == sequence; });
}

bool Scheduler::reserve(Sequence& sequence, int64_t length) {
  const int64_t needed = (length + options_.page_size - 1) / options_.page_size;
  if (needed - static_cast<int64_t>(sequence.block_table.size()) > pool_.free_count()) return false;
  while (static_cast<int64_t>(sequence.block_table.size()) < needed) sequence.block_table.push_back(pool_.take());
  return true;
}

void Scheduler::preempt_youngest() {
  Sequence sequence = std::move(running_.back());
  running_.pop_back();
  pool_.give_back(sequence.block_table);
  sequence.block_table.clear();
  sequence.cached = 0;
  waiting_.push_front(std::move(sequence));
}

}  // namespace lathe::engine
