// lathe-model's subcommands: one file each. Each adds itself, its flags and its callback to the app.
#pragma once

#include <CLI/CLI.hpp>

namespace lathe::programs {

void add_info(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_eval(CLI::App& app);
void add_merge(CLI::App& app);
void add_quantize(CLI::App& app);
void add_pull(CLI::App& app);
void add_convert(CLI::App& app);

}  // namespace lathe::programs
