// Flags of what lathe-bench times on the CPU by repetitions.
#pragma once

#include "programs/cli/program.h"

namespace lathe::bench {

struct TimingOptions {
  cli::CommonOptions common;
  double seconds = 0.05;
  int repetitions = 9;
};

// --threads and --json.
void add_cpu_options(CLI::App& command, cli::CommonOptions& common);
// These, and --seconds and --repetitions.
void add_timing_options(CLI::App& command, TimingOptions& options);

}  // namespace lathe::bench
