// What every program's main shares: arguments (with --config FILE.yaml and '-' and '_' alike), errors, threads, device.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "core/device.h"

namespace lathe::cli {

// Flags that every subcommand has.
struct CommonOptions {
  std::string device = "cpu";
  int threads = 0;  // 0: all the CPUs this process may use
  bool json = false;
  std::string config_file;

  // ConfigError for no device's name, ResourceError for one that this build or machine lacks.
  Device parsed_device() const;
};

// Adds --device, --threads, --json and --config to a subcommand.
void add_common_options(CLI::App& command, CommonOptions& options);

// Thrown by a subcommand that a signal has ended in good order, with what is to be said about it. As with a process
// that the signal itself ended, a shell sees 128 + signal.
struct Stopped {
  int signal;
  std::string sentence;
};

// Thrown by a subcommand whose measurement missed a bound that the user set: exit code 3.
struct GateFailed {
  std::string sentence;
};

// Parses, runs what `build` registered as callbacks, and turns errors into one paragraph on standard error:
// exit code 0, 1 for an error, 2 for wrong usage, 3 for GateFailed, 128 + signal for Stopped. `build` receives the app,
// named and described already.
int run_program(int argc, char** argv, const std::string& name, const std::string& description,
                const std::function<void(CLI::App&)>& build);

// The arguments as CLI11 gets them: "--learning-rate" becomes "--learning_rate", and the keys of --config's YAML file
// stand before the command line's own flags, which therefore win; --config stands once more between the two. Exposed
// for tests.
std::vector<std::string> expand_arguments(std::vector<std::string> arguments);

}  // namespace lathe::cli
