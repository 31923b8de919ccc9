// The subcommands of lathe-data.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::programs {

void add_inspect(CLI::App& app);

}  // namespace lathe::programs
