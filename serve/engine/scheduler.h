// Which tokens of which sequences run in the next step, and on which pages.
#pragma once

#include <cstdint>
#include <list>
#include <string_view>
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

  // Running sequences come first, in order of priority and age; then waiting ones as long as tokens, places and pages
  // last. Every running sequence that decodes keeps its token: chunks of prompts share what is left. When a running
  // sequence finds no page, the last of them is put back to wait and will be computed again.
  std::vector<ScheduledSequence> schedule();
  void finish(Sequence* sequence);
  bool cancel(RequestId id);  // false where there is no such sequence

  int64_t running_count() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting_count() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t requests_of_adapter(std::string_view adapter) const;
  int64_t preemptions() const { return preemptions_; }
  const PagePool& pool() const { return pool_; }

 private:
  bool reserve(Sequence& sequence, int64_t length);
  void wait(std::list<Sequence>& from, std::list<Sequence>::iterator sequence);
  void preempt_last();

  SchedulerOptions options_;
  PagePool pool_;
  std::list<Sequence> waiting_, running_;  // each in the order of Sequence::before
  int64_t preemptions_ = 0;
};

}  // namespace lathe::engine
