// lathe-bench model.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::bench {

void add_model(CLI::App& app);

}  // namespace lathe::bench
