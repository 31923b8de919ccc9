// The subcommands of lathe-data.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::programs {

void add_documents(CLI::App& app);
void add_inspect(CLI::App& app);
void add_merge(CLI::App& app);
void add_stats(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_verify(CLI::App& app);

}  // namespace lathe::programs
