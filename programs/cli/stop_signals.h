// SIGINT (Ctrl-C) and SIGTERM while work is going on that should end in good order.
#pragma once

namespace lathe::cli {

// While one of these lives, the first of the signals is noted, and the user told; the next ends the process at once. A
// signal that the caller of the program has ignored (nohup, a background job of a shell script) stays ignored. One at a
// time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  // the signals mean again what they meant before
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  int received() const;  // SIGINT, SIGTERM, or 0 as long as none came
};

}  // namespace lathe::cli
