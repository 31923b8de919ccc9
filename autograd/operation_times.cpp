#include "autograd/operation_times.h"

#include <algorithm>
#include <chrono>

#include "autograd/operation.h"
#include "core/error.h"

namespace lathe::autograd {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

OperationTimes::OperationTimes() {
  if (operation_times != nullptr) throw Error("this thread's operations are timed already");
  operation_times = this;
}

OperationTimes::~OperationTimes() { operation_times = nullptr; }

void OperationTimes::begin(std::string_view name, Direction direction) {
  open_.push_back({name, direction, now_seconds(), 0});
}

void OperationTimes::end() {
  const Open call = open_.back();
  open_.pop_back();
  const double seconds = now_seconds() - call.start;
  if (!open_.empty()) open_.back().inside += seconds;
  auto found =
      std::find_if(times_.begin(), times_.end(), [&](const OperationTime& time) { return time.name == call.name; });
  if (found == times_.end()) found = times_.insert(times_.end(), {.name = std::string(call.name)});
  ++found->calls[static_cast<size_t>(call.direction)];
  found->seconds[static_cast<size_t>(call.direction)] += seconds - call.inside;
}

void OperationTimes::queued(const char* name, int64_t blocks) {
  const std::string_view operation = open_.empty() ? std::string_view() : open_.back().name;
  const Direction direction = open_.empty() ? Direction::forward : open_.back().direction;
  auto found = std::find_if(work_.begin(), work_.end(), [&](const DeviceWork& work) {
    return work.operation == operation && work.direction == direction && work.name == name;
  });
  if (found == work_.end())
    found = work_.insert(work_.end(), {.operation = std::string(operation), .direction = direction, .name = name});
  ++found->count;
  found->blocks += blocks;
}

std::vector<OperationTime> OperationTimes::longest_first() const {
  std::vector<OperationTime> sorted = times_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const OperationTime& a, const OperationTime& b) {
    return a.total_seconds() > b.total_seconds();
  });
  return sorted;
}

void OperationTimer::begin() {
  times_ = operation_times;
  times_->begin(operation_.name(), direction_);
}

void OperationTimer::end() { times_->end(); }

}  // namespace lathe::autograd
