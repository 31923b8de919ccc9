#include "bench/model/profile.h"

#include <fmt/format.h>

#include "core/json_value.h"

namespace lathe::bench {

using autograd::DeviceWork;
using autograd::OperationTime;

namespace {

const char* name_of(autograd::Direction direction) {
  return direction == autograd::Direction::forward ? "forward" : "backward";
}

}  // namespace

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

std::string device_work_table(const autograd::OperationTimes& times, int64_t steps) {
  std::string table = fmt::format("  {:<24} {:<9} {:<24} {:>9} {:>9}\n", "operation", "", "kernel", "a step", "blocks");
  int64_t launches = 0, waits = 0;
  for (const DeviceWork& work : times.device_work()) {
    if (work.name == kernels::waited) waits += work.count;
    if (work.name != kernels::waited && work.name != kernels::queued_copy) launches += work.count;
    table += fmt::format("  {:<24} {:<9} {:<24} {:>9.4g} {:>9.4g}\n", work.operation, name_of(work.direction),
                         work.name, static_cast<double>(work.count) / static_cast<double>(steps),
                         work.blocks == 0 ? 0 : static_cast<double>(work.blocks) / static_cast<double>(work.count));
  }
  return table + fmt::format("  {:.0f} launches and {:.0f} waits a step\n",
                             static_cast<double>(launches) / static_cast<double>(steps),
                             static_cast<double>(waits) / static_cast<double>(steps));
}

nlohmann::ordered_json device_work_json(const autograd::OperationTimes& times) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const DeviceWork& work : times.device_work())
    all.push_back({{"operation", work.operation},
                   {"direction", name_of(work.direction)},
                   {"work", work.name},
                   {"count", work.count},
                   {"blocks", work.blocks}});
  return all;
}

}  // namespace lathe::bench
