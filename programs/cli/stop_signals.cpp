#include "programs/cli/stop_signals.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <string_view>

namespace lathe::cli {
namespace {

constexpr std::array signals = {SIGINT, SIGTERM};
std::atomic<int> noted{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal's handler may take no lock");
std::array<struct sigaction, signals.size()> before;

// Only what signal-safety(7) allows.
void note(int signal) {
  if (noted.exchange(signal) != 0) {
    // A second one, on another thread before the first handler got to the lines below.
    ::signal(signal, SIG_DFL);
    ::raise(signal);
    return;
  }
  for (const int each : signals) ::signal(each, SIG_DFL);
  constexpr std::string_view text = "\nstopping after this step, with a checkpoint; a second signal ends at once\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

StopSignals::StopSignals() {
  noted = 0;
  struct sigaction action = {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  for (const int each : signals) ::sigaddset(&action.sa_mask, each);
  for (size_t i = 0; i < signals.size(); ++i) {
    ::sigaction(signals[i], nullptr, &before[i]);
    if (before[i].sa_handler != SIG_IGN) ::sigaction(signals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < signals.size(); ++i) ::sigaction(signals[i], &before[i], nullptr);
}

int StopSignals::received() const { return noted; }

}  // namespace lathe::cli
