// Which tokens of which sequences run in the next step, and on which pages.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <vector>

#include "serve/engine/page_pool.h"
#include "serve/engine/sequence.h"

namespace lathe::engine {

struct SchedulerOptions {
  int64_t page_size = 16;
  int64_t pages = 0;
  int64_t max_sequences = 64;         // running at once
  int64_t max_tokens_per_step = 512;  // decode tokens first, the rest goes to prefill in chunks
};

// `tokens` tokens of `sequence`, from position sequence->cached on. The step that reaches its last token samples.
struct ScheduledSequence {
  Sequence* sequence = nullptr;
  int64_t tokens = 0;
  bool samples() const { return sequence->cached + tokens == sequence->length(); }
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  void add(Sequence sequence);
  bool idle() const { return waiting_.empty() && running_.empty(); }

  // Running sequences come first, oldest first; then waiting ones as long as tokens, places and pages last. When a
  // running sequence finds no page, the youngest is put back to wait and will be computed again.
  std::vector<ScheduledSequence> schedule();
  void finish(Sequence* sequence);

 private:
  bool reserve(Sequence& sequence, int64_t length);
  void preempt_youngest();

  SchedulerOptions options_;
  PagePool pool_;
  std::deque<Sequence> waiting_;
  std::list<Sequence> running_;
};

}  // namespace lathe::engine
