// The clock that ceilings and operations are timed by.
#pragma once

#include <ctime>

namespace lathe::bench {

// wall: what a user waits. cpu: the time this process computed, for one thread on a machine that others use as well.
enum class Clock { wall, cpu };
inline Clock clock_in_use = Clock::wall;

inline double now_seconds() {
  timespec time{};
  ::clock_gettime(clock_in_use == Clock::cpu ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace lathe::bench
