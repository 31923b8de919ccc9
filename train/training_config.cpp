#include "train/training_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"

namespace lathe::train {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

// The shortest text that reads back as the same double.
std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

std::string quoted_if_needed(const std::string& text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '/' || c == '.' || c == '-' || c == '+';
  }) && text[0] != '-';
  if (plain) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "''" : std::string(1, c);
  return quoted + "'";
}

bool parse_bool(const std::string& name, const std::string& text) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower.empty() || lower == "true" || lower == "yes" || lower == "on" || lower == "1") return true;
  if (lower == "false" || lower == "no" || lower == "off" || lower == "0") return false;
  throw ConfigError(name, "expected true or false, found '" + text + "'");
}

template <class Number>
Number parse_number(const std::string& name, const std::string& text) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc{} || result.ptr != end)
    throw ConfigError(name, std::string("expected ") + (std::is_integral_v<Number> ? "a whole number" : "a number") +
                                ", found '" + text + "'");
  return value;
}

}  // namespace

std::string text_of(const Field& field) {
  const auto truth = [](bool value) { return std::string(value ? "true" : "false"); };
  return std::visit(
      Overloaded{
          [&](const bool* value) { return truth(*value); }, [](const int64_t* value) { return std::to_string(*value); },
          [](const double* value) { return number_text(*value); },
          [](const std::string* value) { return value->empty() ? "null" : quoted_if_needed(*value); },
          [&](const std::optional<bool>* value) { return *value ? truth(**value) : "null"; },
          [](const std::optional<double>* value) { return *value ? number_text(**value) : std::string("null"); }},
      field.target);
}

void set_from_text(const Field& field, const std::string& text) {
  std::visit(Overloaded{[&](bool* value) { *value = parse_bool(field.name, text); },
                        [&](int64_t* value) { *value = parse_number<int64_t>(field.name, text); },
                        [&](double* value) { *value = parse_number<double>(field.name, text); },
                        [&](std::string* value) { *value = text; },
                        [&](std::optional<bool>* value) { *value = parse_bool(field.name, text); },
                        [&](std::optional<double>* value) { *value = parse_number<double>(field.name, text); }},
             field.target);
}

nn::LoraConfig lora_config(const SftConfig& config) {
  nn::LoraConfig lora;
  lora.r = config.lora_r;
  lora.lora_alpha = config.lora_alpha;
  lora.lora_dropout = config.lora_dropout;
  lora.use_rslora = config.use_rslora;
  lora.base_model_name_or_path = config.model;
  const std::string& targets = config.lora_target_modules;
  const bool names = targets != "all-linear" && std::all_of(targets.begin(), targets.end(), [](unsigned char c) {
                       return std::isalnum(c) != 0 || c == '_' || c == '.' || c == ',';
                     });
  if (!names) {
    lora.target_modules_regex = targets;
    return lora;
  }
  for (size_t begin = 0; begin <= targets.size();) {
    const size_t end = std::min(targets.find(',', begin), targets.size());
    if (end > begin) lora.target_modules.push_back(targets.substr(begin, end - begin));
    begin = end + 1;
  }
  return lora;
}

std::string resolved_yaml(const SftConfig& config) {
  SftConfig resolved = config;
  resolved.learning_rate = config.resolved_learning_rate();
  resolved.dtype = config.resolved_dtype();
  resolved.bf16.reset();
  // How this call was made, not what the run is.
  resolved.resume = resolved.overwrite_output_dir = resolved.dry_run = false;
  resolved.resume_from_checkpoint.clear();
  std::string yaml = "# lathe-train sft --config THIS_FILE repeats this run.\n", group;
  for (const Field& field : fields_of(resolved)) {
    if (field.group != group) yaml += "\n# " + field.group + "\n";
    group = field.group;
    yaml += field.name + ": " + text_of(field) + "\n";
  }
  return yaml;
}

std::vector<std::pair<std::string, std::string>> result_settings(const SftConfig& config) {
  SftConfig resolved = config;
  resolved.learning_rate = config.resolved_learning_rate();
  resolved.dtype = config.resolved_dtype();
  std::vector<std::pair<std::string, std::string>> settings;
  for (const Field& field : fields_of(resolved))
    if (field.shapes == Shapes::result) settings.emplace_back(field.name, text_of(field));
  settings.emplace_back("per_device_train_batch_size × gradient_accumulation_steps",
                        std::to_string(config.rows_per_step()));
  return settings;
}

}  // namespace lathe::train
