#include "bench/timing_options.h"

namespace lathe::bench {

void add_cpu_options(CLI::App& command, cli::CommonOptions& common) {
  command.add_option("--threads", common.threads, "0: all the CPUs this process may use")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_flag("--json", common.json, "print one JSON document");
}

void add_timing_options(CLI::App& command, TimingOptions& options) {
  command.add_option("--seconds", options.seconds, "time spent on each repetition")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--repetitions", options.repetitions, "repetitions, in turn where two are compared; medians count")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_cpu_options(command, options.common);
}

}  // namespace lathe::bench
