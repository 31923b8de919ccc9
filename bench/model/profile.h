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

}  // namespace lathe::bench
