// The settings of `lathe-train sft`: every field of train::SftConfig as a flag of the same name.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

#include "programs/cli/program.h"
#include "train/training_config.h"

namespace lathe::programs {

struct SftArguments {
  cli::CommonOptions common;
  std::vector<std::pair<std::string, std::string>> settings;  // as given; a later one wins
};

void add_sft_arguments(CLI::App& command, SftArguments& arguments);

// Checked whole. Relative dataset paths of a --config file that are not found from here are looked for beside that file.
train::SftConfig parse_sft_config(const SftArguments& arguments);

}  // namespace lathe::programs
