// lathe-bench model and train.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::bench {

void add_model(CLI::App& app);
void add_train(CLI::App& app);

}  // namespace lathe::bench
