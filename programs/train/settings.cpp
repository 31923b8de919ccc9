#include "programs/train/settings.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include "core/error.h"
#include "programs/train/processes.h"

namespace lathe::programs {
namespace {

// Names that TRL and transformers use for the same thing.
std::string aliases_of(const std::string& name) {
  static const std::map<std::string, std::string> aliases = {{"model", ",--model_name_or_path"},
                                                             {"dataset", ",--dataset_name,--train_file"},
                                                             {"eval_dataset", ",--validation_file"},
                                                             {"dtype", ",--torch_dtype"},
                                                             {"lora_modules_to_save", ",--modules_to_save"},
                                                             {"max_length", ",--max_seq_length"},
                                                             {"bnb_4bit_use_double_quant", ",--use_bnb_nested_quant"}};
  const auto found = aliases.find(name);
  return "--" + name + (found == aliases.end() ? "" : found->second);
}

bool is_truth(const train::Field& field) {
  return std::holds_alternative<bool*>(field.target) || std::holds_alternative<std::optional<bool>*>(field.target);
}

CLI::Option* add_value(CLI::App& command, const train::Field& field, train::NamedValues& settings) {
  return command.add_option_function<std::string>(
      aliases_of(field.name),
      [&settings, name = field.name](const std::string& text) { settings.emplace_back(name, text); }, field.help);
}

// --loss_type sigmoid sft is --loss_type sigmoid,sft.
CLI::Option* add_list(CLI::App& command, const train::Field& field, train::NamedValues& settings) {
  constexpr int most = 64;
  return command
      .add_option_function<std::vector<std::string>>(
          aliases_of(field.name),
          [&settings, name = field.name](const std::vector<std::string>& parts) {
            std::string list;
            for (const std::string& part : parts) list += (list.empty() ? "" : ",") + part;
            settings.emplace_back(name, list);
          },
          field.help)
      ->expected(1, most)
      ->trigger_on_parse();  // each time by itself: the lists of --config and of the command line are not joined
}

// --dataset a --dataset b is --dataset a,b. Those of the command line take the place of --config's, which has been seen
// when the first of them comes (expand_arguments).
CLI::Option* add_sources(CLI::App& command, const train::Field& field, TrainArguments& arguments) {
  struct Given {
    std::string list;
    bool on_command_line = false;
  };
  auto given = std::make_shared<Given>();
  return command
      .add_option_function<std::string>(
          aliases_of(field.name),
          [&arguments, given, name = field.name](const std::string& text) {
            const bool on_command_line = !arguments.common.config_file.empty();
            if (on_command_line && !given->on_command_line) given->list.clear();
            given->on_command_line = on_command_line;
            given->list += (given->list.empty() ? "" : ",") + text;
            arguments.settings.emplace_back(name, given->list);
          },
          field.help)
      ->trigger_on_parse();
}

void look_beside(std::string& path, const std::string& config_file) {
  namespace fs = std::filesystem;
  if (path.empty() || config_file.empty() || fs::path(path).is_absolute() || fs::exists(path)) return;
  const fs::path beside = fs::path(config_file).parent_path() / path;
  if (fs::exists(beside)) path = beside.string();
}

}  // namespace

void add_settings(CLI::App& command, const train::Fields& defaults, TrainArguments& arguments) {
  for (const train::Field& field : defaults) {
    CLI::Option* option = field.values == train::Values::several   ? add_list(command, field, arguments.settings)
                          : field.values == train::Values::sources ? add_sources(command, field, arguments)
                                                                   : add_value(command, field, arguments.settings);
    const std::string shown = train::text_of(field) == "null" ? "" : "=" + train::text_of(field);
    // Not default_str: CLI11 takes that for a flag without a value, which stands for true here.
    option->type_name(shown)->group(std::string(name_of(field.group)));
    if (is_truth(field)) option->expected(0, 1);
  }
  cli::add_common_options(command, arguments.common);
  for (const char* name : {"--device", "--threads", "--json", "--config"})
    command.get_option(name)->group("This program");
  command.get_option("--help")->group("This program");
}

train::NamedValues settings_of(const TrainArguments& arguments) {
  train::NamedValues settings = arguments.settings;
  for (auto& [name, text] : settings)
    if (name == "dataset" || name == "eval_dataset") look_beside(text, arguments.common.config_file);
  if (const int count = processes().size(); count > 1)
    settings.insert(settings.begin(), {"world_size", std::to_string(count)});  // unless it is given
  const auto last =
      std::find_if(settings.rbegin(), settings.rend(), [](const auto& s) { return s.first == "dataset"; });
  if (last == settings.rend() || last->second.empty()) return settings;
  try {
    std::vector<train::DatasetSource> sources = train::dataset_sources(last->second);
    for (train::DatasetSource& source : sources) look_beside(source.path, arguments.common.config_file);
    last->second = train::dataset_text(sources);
  } catch (const ConfigError&) {  // said with everything else that is wrong, when the config is checked
  }
  return settings;
}

}  // namespace lathe::programs
