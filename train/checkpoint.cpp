#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "core/atomic_write.h"
#include "core/error.h"
#include "kernels/copy/copy.h"
#include "nn/weights/safetensors.h"
#include "train/manifest.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

constexpr const char *state_name = "trainer_state.json", *optimizer_name = "optimizer.safetensors",
                     *adapter_name = "adapter_model.safetensors", *model_name = "model.safetensors",
                     *objective_name = "objective", *directory_prefix = "checkpoint-";

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

void expect_same(const fs::path& directory, const std::string& key, const std::string& saved, const std::string& now) {
  if (saved == now) return;
  throw ConfigError(key, directory.string() + " was made with " + saved + ", this run has " + now +
                             "; give the same value to resume, or another output_dir to start anew");
}

void check_identity(const fs::path& directory, const RunIdentity& saved, const RunIdentity& identity) {
  for (const auto& [name, value] : identity.settings) {
    const auto found = std::find_if(saved.settings.begin(), saved.settings.end(),
                                    [&wanted = name](const auto& setting) { return setting.first == wanted; });
    expect_same(directory, name, found != saved.settings.end() ? found->second : "nothing", value);
  }
  if (saved.model_fingerprint != identity.model_fingerprint)
    throw ConfigError(
        "model", directory.string() + " was made with another model (its weights differ); resume with the same one");
  if (saved.data_fingerprint != identity.data_fingerprint)
    throw ConfigError("dataset", directory.string() +
                                     " was made with other rows (or another tokenizer, template or max_length); "
                                     "resume with the same dataset, or start anew in another output_dir");
}

void check_objective(const fs::path& directory, const std::string& saved, const Objective& objective) {
  const std::string now(objective.state_name());
  if (saved != now)
    throw ConfigError("resume", directory.string() + " holds " +
                                    (saved.empty() ? "no objective's state" : "the state of the objective " + saved) +
                                    ", this run's objective " + (now.empty() ? "keeps none" : "is " + now) +
                                    "; resume with the same method, or start anew in another output_dir");
  if (!now.empty() && !fs::is_directory(directory / objective_name))
    throw FormatError((directory / objective_name).string(), -1, "is missing, the folder with the state of " + now);
}

void check_step(const fs::path& directory, int64_t step, int64_t total_steps) {
  const std::string file = (directory / state_name).string();
  if (step > total_steps)
    throw FormatError(
        file, -1,
        "step: expected an integer from 0 to " + std::to_string(total_steps) + ", found " + std::to_string(step));
  // A folder that was copied under another name says nothing.
  if (step != step_in_name(directory).value_or(step))
    throw FormatError(file, -1,
                      "step: is " + std::to_string(step) + " in a folder of the name " + directory.filename().string());
}

void check_saved(const nn::SafetensorsFile& file, const std::string& name, const Tensor& saved, const Shape& shape,
                 DType dtype) {
  if (saved.shape() == shape && saved.dtype() == dtype) return;
  throw FormatError(
      file.path().string(), -1,
      name + ": expected " + std::string(name_of(dtype)) + to_string(shape) + ", found " + describe(saved));
}

void restore(const nn::SafetensorsFile& file, const std::string& name, const Tensor& into) {
  const Tensor saved = file.tensor(name);
  check_saved(file, name, saved, into.shape(), into.dtype());
  kernels::copy(into, saved);
  into.bump_version();
}

// With what it began as beside it, where it has that (nn/lora_start.h).
void restore(const nn::SafetensorsFile& file, nn::Parameter& parameter) {
  const Tensor &master = parameter.master, &start = parameter.start;
  if (!start.defined()) {
    restore(file, parameter.name, master);
  } else {
    const Tensor saved = file.tensor(parameter.name);
    const int dimension = saved.rank() == 2 && saved.dim(0) == master.dim(0) ? 1 : 0;
    const int64_t half = master.dim(dimension);
    check_saved(file, parameter.name, saved,
                dimension == 0 ? Shape{2 * half, master.dim(1)} : Shape{master.dim(0), 2 * half}, master.dtype());
    for (const auto& [into, first] : {std::pair(master, int64_t{0}), std::pair(start, half)}) {
      const Tensor part = Tensor::empty(into.shape(), into.dtype());
      kernels::copy(part, saved.slice(dimension, first, first + half));
      kernels::copy(into, part);
      into.bump_version();
    }
  }
  parameter.refresh();
}

void write_masters(const fs::path& path, const Optimizer& optimizer) {
  nn::NamedTensors tensors;
  for (const nn::Parameter& parameter : optimizer.parameters())
    tensors.emplace_back(parameter.name, kernels::moved(parameter.master, {}));
  nn::write_safetensors(path, tensors);
}

}  // namespace

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
  write_file_atomically(aside / state_name, trainer_state_text(state, objective.state_name(), identity));
  write_manifest(aside);
  writing.commit();
}

TrainerState load_checkpoint(const fs::path& directory, Optimizer& optimizer, Objective& objective,
                             const RunIdentity& identity, int64_t total_steps) {
  const auto [state, objective_state, saved_identity] = read_trainer_state(directory / state_name);
  check_identity(directory, saved_identity, identity);
  check_objective(directory, objective_state, objective);
  check_step(directory, state.step, total_steps);
  const bool adapter = fs::exists(directory / adapter_name);
  const auto weights = nn::SafetensorsFile::open(directory / (adapter ? adapter_name : model_name));
  for (nn::Parameter& parameter : optimizer.parameters()) restore(*weights, parameter);
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

}  // namespace lathe::train
