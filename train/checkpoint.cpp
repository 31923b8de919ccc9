#include "train/checkpoint.h"

#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "core/atomic_write.h"
#include "core/error.h"
#include "core/json.h"
#include "kernels/copy/copy.h"
#include "nn/weights/safetensors.h"
#include "train/manifest.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char *state_name = "trainer_state.json", *optimizer_name = "optimizer.safetensors",
                     *adapter_name = "adapter_model.safetensors", *model_name = "model.safetensors",
                     *objective_name = "objective", *directory_prefix = "checkpoint-";
constexpr int64_t state_format = 1;

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

ordered_json window_json(const LogWindow& window) {
  ordered_json json = {{"steps", window.steps}, {"loss", window.loss}, {"sums", ordered_json::object()}};
  for (const MetricSum& metric : window.metrics) {
    json["sums"][metric.name] = metric.sum;
    if (metric.steps != window.steps) json["steps_with"][metric.name] = metric.steps;
  }
  return json;
}

const ordered_json* find(const ordered_json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

const ordered_json& member(const ordered_json& object, const std::string& key, const std::string& file) {
  const ordered_json* found = find(object, key);
  if (found == nullptr) throw FormatError(file, -1, "has no \"" + key + "\"");
  return *found;
}

// Empty where there is none.
std::string text_of(const ordered_json& object, const std::string& key, const std::string& file) {
  const ordered_json* found = find(object, key);
  if (found == nullptr) return "";
  if (!found->is_string()) throw FormatError(file, -1, key + ": expected a string, found " + json_excerpt(*found));
  return found->get<std::string>();
}

LogWindow window_from(const ordered_json& json, int64_t step, const std::string& file) {
  LogWindow window;
  window.steps = json_integer(member(json, "steps", file), "window.steps", 0, step, file);
  window.loss = json_number(member(json, "loss", file), "window.loss", file);
  const ordered_json *sums = &member(json, "sums", file), *steps_with = find(json, "steps_with");
  if (!sums->is_object()) throw FormatError(file, -1, "window.sums: expected an object, found " + json_excerpt(*sums));
  for (const auto& [name, sum] : sums->items()) {
    const ordered_json* steps = steps_with != nullptr ? find(*steps_with, name) : nullptr;
    window.metrics.push_back({name, json_number(sum, name, file),
                              steps != nullptr ? json_integer(*steps, name, 1, window.steps, file) : window.steps});
  }
  return window;
}

ordered_json state_json(const TrainerState& state, const Objective& objective, const RunIdentity& identity) {
  ordered_json json = {{"format", state_format}, {"step", state.step}, {"num_tokens", state.num_tokens}};
  json["window"] = window_json(state.window);
  if (state.metrics) json["metrics_log"] = {{"lines", state.metrics->lines}, {"bytes", state.metrics->bytes}};
  if (!objective.state_name().empty()) json["objective"] = objective.state_name();
  json["model_fingerprint"] = hex(identity.model_fingerprint);
  json["data_fingerprint"] = hex(identity.data_fingerprint);
  for (const auto& [name, value] : identity.settings) json["settings"][name] = value;
  return json;
}

ordered_json read_state(const fs::path& directory) {
  const std::string file = (directory / state_name).string();
  ordered_json json = read_json_file(file);
  if (!json.is_object()) throw FormatError(file, -1, "is no JSON object");
  const ordered_json& format = member(json, "format", file);
  if (format != state_format)
    throw FormatError(file, -1,
                      "has the format " + json_excerpt(format) + ", and this program knows " +
                          std::to_string(state_format) +
                          "; resume with the version that wrote it, or choose another output_dir");
  return json;
}

// The N of "checkpoint-N".
std::optional<int64_t> step_in_name(const fs::path& directory) {
  const std::string name = directory.filename().string();
  if (!name.starts_with(directory_prefix)) return std::nullopt;
  int64_t step = 0;
  const char *begin = name.data() + std::strlen(directory_prefix), *stop = name.data() + name.size();
  const auto parsed = std::from_chars(begin, stop, step);
  if (parsed.ec != std::errc{} || parsed.ptr != stop || step < 0) return std::nullopt;
  return step;
}

TrainerState state_from(const ordered_json& json, const fs::path& directory, int64_t total_steps) {
  const std::string file = (directory / state_name).string();
  TrainerState state;
  state.step = json_integer(member(json, "step", file), "step", 0, total_steps, file);
  // A folder that was copied under another name says nothing.
  const int64_t named = step_in_name(directory).value_or(state.step);
  if (state.step != named)
    throw FormatError(
        file, -1,
        "step: is " + std::to_string(state.step) + " in a folder of the name " + directory.filename().string());
  state.num_tokens = json_integer(member(json, "num_tokens", file), "num_tokens", 0, INT64_MAX, file);
  state.window = window_from(member(json, "window", file), state.step, file);
  if (const ordered_json* log = find(json, "metrics_log"))
    state.metrics = {json_integer(member(*log, "lines", file), "metrics_log.lines", 0, INT64_MAX, file),
                     json_integer(member(*log, "bytes", file), "metrics_log.bytes", 0, INT64_MAX, file)};
  return state;
}

void expect_same(const fs::path& directory, const std::string& key, const std::string& saved, const std::string& now) {
  if (saved == now) return;
  throw ConfigError(key, directory.string() + " was made with " + saved + ", this run has " + now +
                             "; give the same value to resume, or another output_dir to start anew");
}

void check_identity(const fs::path& directory, const ordered_json& json, const RunIdentity& identity) {
  const std::string file = (directory / state_name).string();
  const ordered_json* settings = find(json, "settings");
  for (const auto& [name, value] : identity.settings) {
    const bool has = settings != nullptr && find(*settings, name) != nullptr;
    expect_same(directory, name, has ? text_of(*settings, name, file) : "nothing", value);
  }
  if (text_of(json, "model_fingerprint", file) != hex(identity.model_fingerprint))
    throw ConfigError(
        "model", directory.string() + " was made with another model (its weights differ); resume with the same one");
  if (text_of(json, "data_fingerprint", file) != hex(identity.data_fingerprint))
    throw ConfigError("dataset", directory.string() +
                                     " was made with other rows (or another tokenizer, template or max_length); "
                                     "resume with the same dataset, or start anew in another output_dir");
}

void check_objective(const fs::path& directory, const ordered_json& json, const Objective& objective) {
  const std::string saved = text_of(json, "objective", (directory / state_name).string()), now(objective.state_name());
  if (saved != now)
    throw ConfigError("resume", directory.string() + " holds " +
                                    (saved.empty() ? "no objective's state" : "the state of the objective " + saved) +
                                    ", this run's objective " + (now.empty() ? "keeps none" : "is " + now) +
                                    "; resume with the same method, or start anew in another output_dir");
  if (!now.empty() && !fs::is_directory(directory / objective_name))
    throw FormatError((directory / objective_name).string(), -1, "is missing, the folder with the state of " + now);
}

void restore(const nn::SafetensorsFile& file, const std::string& name, const Tensor& into) {
  const Tensor saved = file.tensor(name);
  if (saved.shape() != into.shape() || saved.dtype() != into.dtype())
    throw FormatError(file.path().string(), -1, name + ": expected " + describe(into) + ", found " + describe(saved));
  kernels::copy(into, saved);
  into.bump_version();
}

void write_masters(const fs::path& path, const Optimizer& optimizer) {
  nn::NamedTensors tensors;
  for (const nn::Parameter& parameter : optimizer.parameters())
    tensors.emplace_back(parameter.name, kernels::moved(parameter.master, {}));
  nn::write_safetensors(path, tensors);
}

}  // namespace

void LogWindow::add(const StepOutcome& outcome) {
  ++steps;
  loss += outcome.loss;
  for (const auto& [name, value] : outcome.metrics) {
    auto found =
        std::find_if(metrics.begin(), metrics.end(), [&wanted = name](const MetricSum& m) { return m.name == wanted; });
    if (found == metrics.end()) {
      metrics.push_back({name, value, 1});
    } else {
      found->sum += value;
      ++found->steps;
    }
  }
}

fs::path checkpoint_path(const fs::path& output_dir, int64_t step) {
  return output_dir / (directory_prefix + std::to_string(step));
}

void save_checkpoint(const fs::path& directory, const nn::Transformer& model, const Optimizer& optimizer,
                     const Objective& objective, const TrainerState& state, const RunIdentity& identity) {
  AtomicDirectory writing(directory);
  const fs::path& aside = writing.staging();
  if (model.has_adapter()) {
    nn::write_peft_adapter(aside, model.adapter());
  } else {
    write_masters(aside / model_name, optimizer);
  }
  nn::NamedTensors moments = optimizer.state();
  for (auto& [name, tensor] : moments) tensor = kernels::moved(tensor, {});
  nn::write_safetensors(aside / optimizer_name, moments);
  if (!objective.state_name().empty()) {
    fs::create_directory(aside / objective_name);
    objective.save_state(aside / objective_name);
  }
  write_file_atomically(aside / state_name, state_json(state, objective, identity).dump(2) + "\n");
  write_manifest(aside);
  writing.commit();
}

TrainerState load_checkpoint(const fs::path& directory, Optimizer& optimizer, Objective& objective,
                             const RunIdentity& identity, int64_t total_steps) {
  const ordered_json json = read_state(directory);
  check_identity(directory, json, identity);
  check_objective(directory, json, objective);
  const TrainerState state = state_from(json, directory, total_steps);
  const bool adapter = fs::exists(directory / adapter_name);
  const auto weights = nn::SafetensorsFile::open(directory / (adapter ? adapter_name : model_name));
  for (nn::Parameter& parameter : optimizer.parameters()) {
    restore(*weights, parameter.name, parameter.master);
    parameter.refresh();
  }
  const auto moments = nn::SafetensorsFile::open(directory / optimizer_name);
  for (const auto& [name, tensor] : optimizer.state()) restore(*moments, name, tensor);
  if (!objective.state_name().empty()) objective.load_state(directory / objective_name);
  return state;
}

std::vector<int64_t> list_checkpoints(const fs::path& output_dir) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator entry(output_dir, error), end; !error && entry != end; entry.increment(error)) {
    if (const auto step = step_in_name(entry->path())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

FoundCheckpoint find_checkpoint(const fs::path& output_dir) {
  FoundCheckpoint found;
  std::vector<int64_t> steps = list_checkpoints(output_dir);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path path = checkpoint_path(output_dir, *step);
    recover_directory(path);
    const std::optional<std::string> broken = broken_part(path);
    if (!broken) {
      found.path = path;
      return found;
    }
    found.skipped.push_back(path.filename().string() + ": " + *broken);
  }
  return found;
}

void remove_old_checkpoints(const fs::path& output_dir, int64_t limit, int64_t newest) {
  if (limit <= 0) return;
  std::vector<int64_t> steps = list_checkpoints(output_dir);
  std::erase_if(steps, [newest](int64_t step) { return step > newest; });
  for (size_t i = 0; i + static_cast<size_t>(limit) < steps.size(); ++i) {
    std::error_code ignored;  // one that cannot be removed costs room, not the run
    fs::remove_all(checkpoint_path(output_dir, steps[i]), ignored);
  }
}

uint64_t model_fingerprint(const nn::WeightSource& weights) {
  std::map<std::string, const nn::WeightInfo*> by_name;  // a file's order is no matter
  for (const nn::WeightInfo& info : weights.weights()) by_name[info.name] = &info;
  uint64_t hash = 0;
  std::vector<float> row;
  for (const auto& [name, info] : by_name) {
    hash = XXH64(name.data(), name.size(), hash);
    const auto dims = info->shape.dims();
    hash = XXH64(dims.data(), dims.size_bytes(), hash);
    const int64_t rows = info->shape.rank() > 1 ? info->shape[0] : 1;
    row.resize(static_cast<size_t>(info->shape.numel() / std::max<int64_t>(rows, 1)));
    for (const int64_t at : {int64_t{0}, rows / 2}) {
      weights.read_rows(name, at, 1, row.data());
      hash = XXH64(row.data(), row.size() * sizeof(float), hash);
    }
  }
  return hash;
}

}  // namespace lathe::train
