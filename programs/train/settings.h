// Every field of a method's config as a flag of the same name.
#pragma once

#include <CLI/CLI.hpp>

#include "programs/cli/program.h"
#include "train/settings/run_config.h"

namespace lathe::programs {

struct TrainArguments {
  cli::CommonOptions common;
  train::NamedValues settings;  // as given; a later one wins
};

// Adds the flags and the common ones. `defaults` are bound to a config that has its defaults.
void add_settings(CLI::App& command, const train::Fields& defaults, TrainArguments& arguments);

// The settings with the relative dataset paths of a --config file that are not found from here looked for beside that
// file.
train::NamedValues settings_of(const TrainArguments& arguments);

// Checked whole, what was left open resolved.
template <class Config>
Config parse_config(const TrainArguments& arguments) {
  return train::resolved(train::make_config<Config>(settings_of(arguments)));
}

}  // namespace lathe::programs
