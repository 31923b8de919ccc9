// Whether operations are recorded. Each thread has its own answer; at first it is yes.
#pragma once

#include <utility>

namespace lathe::autograd {

// While observing nothing is recorded, but it is noted whether anything would have been.
enum class Recording : int { on, observing, off };

struct RecordingState {
  Recording mode = Recording::on;
  bool observed = false;
};
inline thread_local RecordingState recording_state;

// While it lives, this thread records so; afterwards as before.
class RecordingScope {
 public:
  explicit RecordingScope(Recording mode) : previous_(std::exchange(recording_state, {mode, false})) {}
  ~RecordingScope() { recording_state = previous_; }
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  RecordingState previous_;
};

// Inference, evaluation.
struct NoGradScope : RecordingScope {
  NoGradScope() : RecordingScope(Recording::off) {}
};
inline bool grad_enabled() { return recording_state.mode != Recording::off; }

}  // namespace lathe::autograd
