#include "train/trainer_state.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/digits.h"
#include "core/error.h"
#include "core/json.h"
#include "core/json_value.h"

namespace lathe::train {
namespace {

using nlohmann::ordered_json;

constexpr int64_t state_format = 1;
constexpr const char *model_key = "model_fingerprint", *data_key = "data_fingerprint";

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

class StateFile {
 public:
  explicit StateFile(const std::filesystem::path& path) : file_(path.string()), json_(read_json_file(path)) {
    if (!json_.is_object()) fail("is no JSON object");
    const ordered_json& format = json_member(json_, "format", file_);
    if (format != state_format)
      fail("has the format " + json_excerpt(format) + ", and this program knows " + std::to_string(state_format) +
           "; resume with the version that wrote it, or choose another output_dir");
  }

  TrainerState state() const {
    TrainerState state;
    state.step = count(json_, "step", "step");
    state.num_tokens = count(json_, "num_tokens", "num_tokens");
    state.window = window(state.step);
    if (const ordered_json* scale = find(json_, "loss_scale")) state.loss_scale = loss_scale(*scale, state.step);
    if (const ordered_json* log = find(json_, "metrics_log"))
      state.metrics = {count(*log, "lines", "metrics_log.lines"), count(*log, "bytes", "metrics_log.bytes")};
    return state;
  }

  std::string objective() const {
    return find(json_, "objective") != nullptr ? json_text(json_, "objective", file_) : "";
  }

  RunIdentity identity() const {
    RunIdentity identity{{}, fingerprint(model_key), fingerprint(data_key)};
    if (const ordered_json* settings = find(json_, "settings")) {
      if (!settings->is_object()) fail("settings: expected an object, found " + json_excerpt(*settings));
      for (const auto& [name, value] : settings->items())
        identity.settings.emplace_back(name, json_text(*settings, name, file_));
    }
    return identity;
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const { throw FormatError(file_, -1, reason); }

  int64_t count(const ordered_json& object, const std::string& key, const std::string& name) const {
    return json_integer(json_member(object, key, file_), name, 0, INT64_MAX, file_);
  }

  uint64_t fingerprint(const char* key) const {
    const std::string digits = json_text(json_, key, file_);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc{} || digits.size() != 16 || end != digits.data() + digits.size())
      fail(std::string(key) + ": expected 16 hexadecimal digits, found " + json_excerpt(digits));
    return value;
  }

  LossScale loss_scale(const ordered_json& json, int64_t step) const {
    LossScale scale;
    scale.scale = json_number(json_member(json, "scale", file_), "loss_scale.scale", file_);
    int exponent;
    if (std::frexp(scale.scale, &exponent) != 0.5 || scale.scale < LossScale::least)
      fail("loss_scale.scale: expected a power of two from 1 on, found " + json_excerpt(json.at("scale")));
    scale.growth_tracker = json_integer(json_member(json, "growth_tracker", file_), "loss_scale.growth_tracker", 0,
                                        LossScale::growth_interval - 1, file_);
    scale.skipped_steps =
        json_integer(json_member(json, "skipped_steps", file_), "loss_scale.skipped_steps", 0, step, file_);
    return scale;
  }

  LogWindow window(int64_t step) const {
    const ordered_json& json = json_member(json_, "window", file_);
    LogWindow window;
    window.steps = json_integer(json_member(json, "steps", file_), "window.steps", 0, step, file_);
    window.loss = json_number(json_member(json, "loss", file_), "window.loss", file_);
    const ordered_json *sums = &json_member(json, "sums", file_), *steps_with = find(json, "steps_with");
    if (!sums->is_object()) fail("window.sums: expected an object, found " + json_excerpt(*sums));
    for (const auto& [name, sum] : sums->items()) {
      const ordered_json* steps = steps_with != nullptr ? find(*steps_with, name) : nullptr;
      window.metrics.push_back({name, json_number(sum, name, file_),
                                steps != nullptr ? json_integer(*steps, name, 1, window.steps, file_) : window.steps});
    }
    return window;
  }

  std::string file_;
  ordered_json json_;
};

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

std::string trainer_state_text(const TrainerState& state, std::string_view objective, const RunIdentity& identity) {
  ordered_json json = {{"format", state_format}, {"step", state.step}, {"num_tokens", state.num_tokens}};
  json["window"] = window_json(state.window);
  if (const auto& scale = state.loss_scale)
    json["loss_scale"] = {
        {"scale", scale->scale}, {"growth_tracker", scale->growth_tracker}, {"skipped_steps", scale->skipped_steps}};
  if (state.metrics) json["metrics_log"] = {{"lines", state.metrics->lines}, {"bytes", state.metrics->bytes}};
  if (!objective.empty()) json["objective"] = objective;
  json[model_key] = hash_digits(identity.model_fingerprint);
  json[data_key] = hash_digits(identity.data_fingerprint);
  for (const auto& [name, value] : identity.settings) json["settings"][name] = value;
  return json.dump(2) + "\n";
}

SavedTrainerState read_trainer_state(const std::filesystem::path& path) {
  const StateFile file(path);
  return {file.state(), file.objective(), file.identity()};
}

}  // namespace lathe::train
