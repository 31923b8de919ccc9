// lathe-bench serve.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::bench {

void add_serve(CLI::App& app);

}  // namespace lathe::bench
