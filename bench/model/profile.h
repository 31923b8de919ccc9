// What lathe-bench model and train say about where the time goes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "autograd/operation_times.h"

namespace lathe::bench {

// A table: each operation's calls, milliseconds and share of `seconds`, longest first, and what lies outside of them.
std::string profile_table(const autograd::OperationTimes& times, double seconds);
// The same: [{"operation", "forward_calls", "forward_seconds", "backward_calls", "backward_seconds"}, …].
nlohmann::ordered_json profile_json(const autograd::OperationTimes& times);

// Of a device, a step of `steps`: what each operation queued and how often it waited, in the order of the first time.
std::string device_work_table(const autograd::OperationTimes& times, int64_t steps);
// The same: [{"operation", "direction", "work", "count", "blocks"}, …], of all steps.
nlohmann::ordered_json device_work_json(const autograd::OperationTimes& times);

}  // namespace lathe::bench
