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
  std::list<Sequence> arrived;
  arrived.push_back(std::move(sequence));
  wait(arrived, arrived.begin());
}

std::vector<ScheduledSequence> Scheduler::schedule() {
  std::vector<ScheduledSequence> scheduled;
  const int64_t preemptions_before = preemptions_;
  const auto decoding = std::count_if(running_.begin(), running_.end(), [](const Sequence& sequence) {
    return sequence.length() - sequence.cached == 1;
  });
  int64_t budget = options_.max_tokens_per_step;
  int64_t prefill_budget = std::max<int64_t>(0, budget - decoding);
  // A preemption removes from the back of running_, which this loop has not reached, or the sequence it stands at.
  for (auto it = running_.begin(); it != running_.end() && budget > 0;) {
    Sequence& sequence = *it;
    const int64_t missing = sequence.length() - sequence.cached;
    const int64_t tokens = missing == 1 ? 1 : std::min({budget, prefill_budget, missing});
    bool itself_preempted = false;
    while (!reserve(sequence, sequence.cached + tokens)) {
      itself_preempted = &running_.back() == &sequence;
      if (itself_preempted) ++it;
      preempt_last();
      if (itself_preempted) break;
    }
    if (itself_preempted) break;
    ++it;
    if (tokens == 0) continue;
    scheduled.push_back({&sequence, tokens});
    budget -= tokens;
    if (missing > 1) prefill_budget -= tokens;
  }
  if (preemptions_ > preemptions_before) return scheduled;  // what was just put back would take its pages again
  while (!waiting_.empty() && budget > 0 && running_count() < options_.max_sequences) {
    Sequence& sequence = waiting_.front();
    const int64_t tokens = std::min(budget, sequence.length());
    if (!reserve(sequence, tokens)) break;
    const auto place =
        std::find_if(running_.begin(), running_.end(), [&](const Sequence& other) { return sequence.before(other); });
    running_.splice(place, waiting_, waiting_.begin());
    scheduled.push_back({&sequence, tokens});
    budget -= tokens;
  }
  return scheduled;
}

void Scheduler::finish(Sequence* sequence) {
  pool_.give_back(sequence->block_table);
  running_.remove_if([sequence](const Sequence& candidate) { return &candidate == sequence; });
}

bool Scheduler::cancel(RequestId id) {
  for (std::list<Sequence>* const sequences : {&running_, &waiting_}) {
    const auto found = std::find_if(sequences->begin(), sequences->end(),
                                    [id](const Sequence& sequence) { return sequence.id == id; });
    if (found == sequences->end()) continue;
    pool_.give_back(found->block_table);
    sequences->erase(found);
    return true;
  }
  return false;
}

int64_t Scheduler::requests_of_adapter(std::string_view adapter) const {
  int64_t count = 0;
  for (const std::list<Sequence>* const sequences : {&running_, &waiting_})
    count += std::count_if(sequences->begin(), sequences->end(),
                           [adapter](const Sequence& sequence) { return sequence.adapter == adapter; });
  return count;
}

bool Scheduler::reserve(Sequence& sequence, int64_t length) {
  const int64_t needed = (length + options_.page_size - 1) / options_.page_size;
  if (needed - static_cast<int64_t>(sequence.block_table.size()) > pool_.free_count()) return false;
  while (static_cast<int64_t>(sequence.block_table.size()) < needed) sequence.block_table.push_back(pool_.take());
  return true;
}

// Moves a sequence to its place among those that wait.
void Scheduler::wait(std::list<Sequence>& from, std::list<Sequence>::iterator sequence) {
  // From the back: most arrive in order.
  auto place = waiting_.end();
  while (place != waiting_.begin() && sequence->before(*std::prev(place))) --place;
  waiting_.splice(place, from, sequence);
}

void Scheduler::preempt_last() {
  Sequence& sequence = running_.back();
  pool_.give_back(sequence.block_table);
  sequence.block_table.clear();
  sequence.cached = 0;
  ++preemptions_;
  wait(running_, std::prev(running_.end()));
}

}  // namespace lathe::engine
