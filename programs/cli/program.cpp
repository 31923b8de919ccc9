#include "programs/cli/program.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <new>
#include <sstream>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"
#include "programs/cli/messages.h"
#include "programs/cli/usage_errors.h"
#include "programs/cli/yaml_arguments.h"

namespace lathe::cli {
namespace {

std::string with_underscores(std::string argument) {
  if (!argument.starts_with("--")) return argument;
  const size_t end = std::min(argument.find('='), argument.size());
  std::replace(argument.begin() + 2, argument.begin() + static_cast<std::ptrdiff_t>(end), '-', '_');
  return argument;
}

std::vector<std::string> arguments_of_yaml(const std::string& file) {
  std::vector<std::string> arguments;
  for (const auto& [key, value] : read_yaml_settings(file))
    arguments.push_back(with_underscores("--" + key) + "=" + value);
  return arguments;
}

// Help goes to standard output; what is wrong with the usage names what the user, or a --config file, gave.
int report(const CLI::App& app, const CLI::ParseError& error) {
  if (const std::string sentence = sentence_of_unknown_name(app, error); !sentence.empty()) {
    print_error(sentence);
    return 2;
  }
  std::ostringstream wrong;
  const int code = app.exit(error, std::cout, wrong);
  std::string text = wrong.str();
  if (text.ends_with('\n')) text.pop_back();
  if (!text.empty()) print_note(text);
  return code == 0 ? 0 : 2;
}

// What the standard library says of files that can be reached only in part, as a sentence of ours.
std::string sentence_of(const std::filesystem::filesystem_error& error) {
  return error.path1().string() + ": " + error.code().message();
}

}  // namespace

std::vector<std::string> expand_arguments(std::vector<std::string> arguments) {
  std::string config_file;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--") break;
    arguments[i] = with_underscores(arguments[i]);
    if (arguments[i] == "--config" && i + 1 < arguments.size()) config_file = arguments[i + 1];
    if (arguments[i].starts_with("--config=")) config_file = arguments[i].substr(9);
  }
  if (config_file.empty()) return arguments;
  std::vector<std::string> from_file = arguments_of_yaml(config_file);
  from_file.push_back("--config=" + config_file);  // where the file's keys end and the command line's own begin
  // After the subcommand's name, before everything else.
  const size_t at = !arguments.empty() && !arguments[0].starts_with("-") ? 1 : 0;
  arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(at), from_file.begin(), from_file.end());
  return arguments;
}

Device CommonOptions::parsed_device() const {
  const Device parsed = parse_device(device);
  if (const std::string why = kernels::why_unavailable(parsed); !why.empty()) throw ResourceError(why);
  return parsed;
}

void add_common_options(CLI::App& command, CommonOptions& options) {
  command.add_option("--device", options.device, "cpu, cuda, cuda:N or simt")->capture_default_str();
  command
      .add_option("--threads", options.threads, "threads to compute with; results do not depend on it (0: all CPUs)")
      ->check(CLI::Range(0, 1024));
  command.add_flag("--json", options.json, "print results as JSON on standard output");
  command.add_option("--config", options.config_file, "YAML file of these flags by name; the command line wins")
      ->trigger_on_parse();
}

int run_program(int argc, char** argv, const std::string& name, const std::string& description,
                const std::function<void(CLI::App&)>& build) {
  try {
    CLI::App app{description, name};
    app.set_version_flag("--version", "lathe 0.1.0");
    app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    app.require_subcommand(1);
    app.get_formatter()->column_width(38);
    build(app);
    std::vector<std::string> arguments = expand_arguments({argv + 1, argv + argc});
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
    try {
      app.parse(arguments);
    } catch (const CLI::ParseError& error) {
      return report(app, error);
    }
    return 0;
  } catch (const Stopped& stopped) {
    print_note(stopped.sentence);
    return 128 + stopped.signal;
  } catch (const GateFailed& failed) {
    print_note(failed.sentence);
    return 3;
  } catch (const ConfigError& error) {
    print_error(error.what());
    return 2;
  } catch (const Error& error) {
    print_error(error.what());
  } catch (const std::bad_alloc&) {
    print_error("out of memory; lower the batch size or the length, or close other programs");
  } catch (const std::filesystem::filesystem_error& error) {
    print_error(sentence_of(error));
  } catch (const std::exception& error) {
    print_note(std::string("internal error: ") + error.what());
  }
  return 1;
}

}  // namespace lathe::cli
