#include "programs/cli/usage_errors.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "core/nearest_name.h"

namespace lathe::cli {
namespace {

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  return names;
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* subcommand : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(subcommand->get_name());
  return names;
}

std::string unknown_subcommand(const CLI::App& app, const std::string& found) {
  const std::vector<std::string> names = subcommand_names(app);
  const std::string nearest = nearest_name(found, names);
  return fmt::format("{} has no subcommand '{}', but {}{}", app.get_name(), found, fmt::join(names, ", "),
                     nearest.empty() ? "" : "; the nearest is " + nearest);
}

std::string unknown_option(const CLI::App& command, const std::string& full_name, const std::string& argument) {
  const std::string found = argument.substr(0, argument.find('='));
  const std::string nearest = nearest_name(found.substr(2), option_names(command));
  return full_name + " has no option " + found + (nearest.empty() ? "" : "; the nearest is --" + nearest);
}

}  // namespace

std::string sentence_of_unknown_name(const CLI::App& app, const CLI::ParseError& error) {
  const auto code = static_cast<CLI::ExitCodes>(error.get_exit_code());
  if (code != CLI::ExitCodes::ExtrasError && code != CLI::ExitCodes::RequiredError) return "";
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  const CLI::App& command = parsed.empty() ? app : *parsed.front();
  const std::string full_name = parsed.empty() ? app.get_name() : app.get_name() + " " + command.get_name();
  const std::vector<std::string> unknown = app.remaining(true);
  const auto option = std::find_if(unknown.begin(), unknown.end(),
                                   [](const std::string& a) { return a.starts_with("--") && a.size() > 2; });
  const bool lacks_subcommand = parsed.empty() && !subcommand_names(app).empty();
  if (lacks_subcommand && !unknown.empty() && !unknown.front().starts_with("-"))
    return unknown_subcommand(app, unknown.front());
  if (option != unknown.end()) return unknown_option(command, full_name, *option);
  return "";
}

}  // namespace lathe::cli
