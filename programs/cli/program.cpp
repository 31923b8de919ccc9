#include "programs/cli/program.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdio>
#include <new>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"

namespace lathe::cli {
namespace {

std::string with_underscores(std::string argument) {
  if (!argument.starts_with("--")) return argument;
  const size_t end = std::min(argument.find('='), argument.size());
  std::replace(argument.begin() + 2, argument.begin() + static_cast<std::ptrdiff_t>(end), '-', '_');
  return argument;
}

std::string scalar_text(const std::string& file, const std::string& key, const YAML::Node& node) {
  if (node.IsScalar()) return node.Scalar();
  if (node.IsSequence()) {
    std::string joined;
    for (const YAML::Node& item : node) joined += (joined.empty() ? "" : ",") + scalar_text(file, key, item);
    return joined;
  }
  throw ConfigError(key, "expected a value or a list of values in " + file + ", line " +
                             std::to_string(node.Mark().line + 1));
}

std::vector<std::string> arguments_of_yaml(const std::string& file) {
  YAML::Node root;
  try {
    root = YAML::LoadFile(file);
  } catch (const YAML::BadFile&) {
    throw ConfigError("config", file + " cannot be opened");
  } catch (const YAML::ParserException& error) {
    throw FormatError(file, -1, "line " + std::to_string(error.mark.line + 1) + ": " + error.msg);
  }
  std::vector<std::string> arguments;
  if (root.IsNull()) return arguments;
  if (!root.IsMap()) throw FormatError(file, 0, "expected a YAML mapping of flag names to values");
  for (const auto& pair : root) {
    const std::string key = pair.first.Scalar();
    if (pair.second.IsNull()) continue;  // "key:" leaves the default
    arguments.push_back(with_underscores("--" + key) + "=" + scalar_text(file, key, pair.second));
  }
  return arguments;
}

void report(const char* kind, const std::string& sentence) { std::fprintf(stderr, "%s: %s\n", kind, sentence.c_str()); }

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
  const std::vector<std::string> from_file = arguments_of_yaml(config_file);
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
  command.add_option("--threads", options.threads, "threads to compute with; results do not depend on it (0: all CPUs)")
      ->check(CLI::Range(0, 1024));
  command.add_flag("--json", options.json, "print results as JSON on standard output");
  command.add_option("--config", options.config_file, "YAML file of these flags by name; the command line wins");
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
      return app.exit(error) == 0 ? 0 : 2;
    }
    return 0;
  } catch (const ConfigError& error) {
    report("error", error.what());
    return 2;
  } catch (const Error& error) {
    report("error", error.what());
    return 1;
  } catch (const std::bad_alloc&) {
    report("error", "out of memory; lower the batch size or the length, or close other programs");
    return 1;
  } catch (const std::exception& error) {
    report("internal error", error.what());
    return 1;
  }
}

}  // namespace lathe::cli
