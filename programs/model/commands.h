// lathe-model's subcommands: one file each. Each adds itself, its flags and its callback to the app.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

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

inline double mebibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace lathe::programs
