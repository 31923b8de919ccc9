// What is wrong with a command line, in a sentence that says what was meant.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace lathe::cli {

// For a subcommand or an option that does not exist: its name, and the nearest that does. Empty for every other error:
// CLI11's own sentence says it.
std::string sentence_of_unknown_name(const CLI::App& app, const CLI::ParseError& error);

}  // namespace lathe::cli
