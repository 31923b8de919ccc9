#include "bench/model/profile.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace lathe::bench {

using autograd::OperationTime;

std::string profile_table(const autograd::OperationTimes& times, double seconds) {
  std::string table =
      fmt::format("  {:<24} {:>7} {:>10} {:>10} {:>8}\n", "operation", "calls", "forward", "backward", "");
  double inside = 0;
  for (const OperationTime& time : times.longest_first()) {
    inside += time.total_seconds();
    table +=
        fmt::format("  {:<24} {:>7} {:>7.1f} ms {:>7.1f} ms {:>6.1f} %\n", time.name, time.calls[0] + time.calls[1],
                    1e3 * time.seconds[0], 1e3 * time.seconds[1], 100 * time.total_seconds() / seconds);
  }
  table += fmt::format("  {:<24} {:>7} {:>7.1f} ms {:>10} {:>6.1f} %\n", "outside of operations", "",
                       1e3 * (seconds - inside), "", 100 * (seconds - inside) / seconds);
  return table;
}

nlohmann::ordered_json profile_json(const autograd::OperationTimes& times) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const OperationTime& time : times.longest_first())
    all.push_back({{"operation", time.name},
                   {"forward_calls", time.calls[0]},
                   {"forward_seconds", time.seconds[0]},
                   {"backward_calls", time.calls[1]},
                   {"backward_seconds", time.seconds[1]}});
  return all;
}

}  // namespace lathe::bench
