// lathe-bench matmul.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::bench {

void add_matmul(CLI::App& app);

}  // namespace lathe::bench
