// A run on the tiny golden Llama: the model with an adapter, rows, a config and a folder that goes away.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "nn/model_files.h"
#include "nn/transformer.h"
#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"
#include "train/sft/sft_config.h"
#include "train/sft/sft_objective.h"
#include "train/trainer.h"

namespace lathe::train {

inline std::filesystem::path golden(const std::string& path) {
  return std::filesystem::path(source_dir) / "tests/golden" / path;
}

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw ResourceError(path.string() + " is not there");
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// Random ids with runs of ignored labels, lengths 4 … 20.
inline TrainingSet random_rows(int64_t rows, uint64_t seed, uint64_t vocabulary = 320) {
  TrainingSet set;
  RandomStream random(seed, RandomPurpose::test);
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<int32_t> ids, labels;
    const auto length = static_cast<int64_t>(4 + random.below(17));
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(random.below(vocabulary)));
      labels.push_back(i < length / 2 && random.below(4) != 0 ? -100 : ids.back());
    }
    set.add_row(ids, labels);
  }
  return set;
}

inline SftConfig tiny_config(const std::filesystem::path& output_dir) {
  SftConfig config;
  config.model = golden("tiny_llama/untied").string();
  config.dataset = "rows";
  config.output_dir = output_dir.string();
  config.dtype = "float32";
  config.learning_rate = 5e-3;
  config.per_device_train_batch_size = 4;
  config.max_steps = 6;
  config.logging_steps = 1;
  config.lora_r = 4;
  return config;
}

// The model of a run: with its adapter (`adapter`'s, or a new one), or its weights to be trained. Of the options the
// dtype and what trains follow from the config.
inline std::unique_ptr<nn::Transformer> tiny_model(const RunConfig& config, const nn::ModelFiles& files,
                                                   const std::string& adapter, nn::TransformerOptions options = {}) {
  options.dtype = nn::parse_compute_dtype(config.dtype);
  if (!config.use_peft) options.weights = nn::WeightMode::trainable;
  auto model = std::make_unique<nn::Transformer>(files.config, *files.weights, options);
  if (!adapter.empty()) {
    model->load_adapter(nn::read_peft_adapter(adapter));
  } else if (config.use_peft) {
    model->add_lora(lora_config(config), static_cast<uint64_t>(config.seed));
  }
  return model;
}

// Until `steps` are done (none: only starts or resumes). Makes the run's trainer at the first call.
template <class Run>
std::vector<StepRecord> train_steps(Run& run, int64_t steps) {
  if (!run.trainer)
    run.trainer = std::make_unique<Trainer>(
        run.config, *run.objective, *run.model,
        RunIdentity{result_settings(run.config), model_fingerprint(*run.files.weights), run.objective->fingerprint()});
  std::vector<StepRecord> records;
  while (!run.trainer->done() && run.trainer->steps_done() < steps) records.push_back(run.trainer->step());
  return records;
}

inline std::string parameter_bytes_of(nn::Transformer& model) {
  std::string bytes;
  for (const nn::Parameter& parameter : model.trainable_parameters()) {
    const Tensor master = kernels::moved(parameter.master, {});
    bytes.append(static_cast<const char*>(master.raw()), static_cast<size_t>(master.nbytes()));
  }
  return bytes;
}

inline double metric_of(const Metrics& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  throw Error(name + " is not among the metrics");
}

// What the run learns; it borrows the model and the rows. Empty: SFT.
using MakeObjective = std::function<std::unique_ptr<Objective>(nn::Transformer&, const TrainingSet&, const SftConfig&)>;

struct TinyRun {
  SftConfig config;
  TrainingSet rows;
  nn::ModelFiles files;
  std::unique_ptr<nn::Transformer> model;
  std::unique_ptr<Objective> objective;
  std::unique_ptr<Trainer> trainer;

  TinyRun(SftConfig settings, TrainingSet training, const MakeObjective& make_objective = {},
          const nn::TransformerOptions& options = {})
      : config(std::move(settings)), rows(std::move(training)) {
    files = nn::open_model_files(config.model);
    model = tiny_model(config, files, config.adapter, options);
    objective = make_objective ? make_objective(*model, rows, config)
                               : std::make_unique<SftObjective>(*model, rows, nullptr, config);
  }

  std::vector<StepRecord> train(int64_t steps = INT64_MAX) { return train_steps(*this, steps); }
  std::string parameter_bytes() const { return parameter_bytes_of(*model); }
};

}  // namespace lathe::train
