// Where the time of forwards and backward walks goes, operation by operation: for lathe-bench --profile.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/queued_work.h"

namespace lathe::autograd {

class Operation;

enum class Direction : uint8_t { forward, backward };

struct OperationTime {
  std::string name;  // Operation::name()
  // By Direction: calls, and seconds of the operation itself, without those of operations that it applied in turn.
  int64_t calls[2] = {};
  double seconds[2] = {};
  double total_seconds() const { return seconds[0] + seconds[1]; }
};

// What an operation queued on a device under one name, or how often it waited there (kernels/cuda/queued_work.h).
struct DeviceWork {
  std::string operation;  // empty: none
  Direction direction;    // forward where there is no operation
  std::string name;
  int64_t count = 0, blocks = 0;  // blocks of all launches' grids
};

// While it lives, the operations that this thread applies and walks are timed, and what they queue is counted. A device
// works on after the call that is timed: there the seconds are the host's. One at a time to a thread (Error).
class OperationTimes final : private kernels::QueuedWorkListener {
 public:
  OperationTimes();
  ~OperationTimes();
  OperationTimes(const OperationTimes&) = delete;
  OperationTimes& operator=(const OperationTimes&) = delete;

  std::vector<OperationTime> longest_first() const;
  // In the order in which each was first queued.
  const std::vector<DeviceWork>& device_work() const { return work_; }

 private:
  friend class OperationTimer;
  struct Open {
    std::string_view name;
    Direction direction;
    double start, inside;  // seconds: of the clock, and of operations within
  };
  void begin(std::string_view name, Direction direction);
  void end();
  void queued(const char* name, int64_t blocks) override;

  std::vector<OperationTime> times_;
  std::vector<DeviceWork> work_;
  std::vector<Open> open_;
};

inline thread_local OperationTimes* operation_times = nullptr;  // null: nobody asked

// One call of an operation; where nobody asked it costs a look at that pointer.
class OperationTimer {
 public:
  OperationTimer(const Operation& operation, Direction direction) : operation_(operation), direction_(direction) {
    if (operation_times != nullptr) begin();
  }
  ~OperationTimer() {
    if (times_ != nullptr) end();
  }
  OperationTimer(const OperationTimer&) = delete;
  OperationTimer& operator=(const OperationTimer&) = delete;

 private:
  void begin();
  void end();

  const Operation& operation_;
  Direction direction_;
  OperationTimes* times_ = nullptr;
};

}  // namespace lathe::autograd
