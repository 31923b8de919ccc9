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
#include "nn/model_files.h"
#include "nn/transformer.h"
#include "tests/support/temporary_folder.h"
#include "train/sft/sft_config.h"
#include "train/sft/sft_objective.h"
#include "train/trainer.h"

namespace lathe::train {

inline std::filesystem::path golden(const std::string& path) {
  return std::filesystem::path(LATHE_SOURCE_DIR) / "tests/golden" / path;
}

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw ResourceError(path.string() + " is not there");
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// Random ids with runs of ignored labels, lengths 4 … 20.
inline TrainingSet random_rows(int64_t rows, uint64_t seed) {
  TrainingSet set;
  RandomStream random(seed, RandomPurpose::test);
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<int32_t> ids, labels;
    const auto length = static_cast<int64_t>(4 + random.below(17));
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(random.below(320)));
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

// What the run learns; it borrows the model and the rows. Empty: SFT.
using MakeObjective = std::function<std::unique_ptr<Objective>(nn::Transformer&, const TrainingSet&, const SftConfig&)>;

struct TinyRun {
  SftConfig config;
  TrainingSet rows;
  nn::ModelFiles files;
  std::unique_ptr<nn::Transformer> model;
  std::unique_ptr<Objective> objective;
  std::unique_ptr<Trainer> trainer;

  TinyRun(SftConfig settings, TrainingSet training, const MakeObjective& make_objective = {})
      : config(std::move(settings)), rows(std::move(training)) {
    files = nn::open_model_files(config.model);
    nn::TransformerOptions options;
    options.dtype = nn::parse_compute_dtype(config.dtype);
    if (!config.use_peft) options.weights = nn::WeightMode::trainable;
    model = std::make_unique<nn::Transformer>(files.config, *files.weights, options);
    if (!config.adapter.empty()) {
      model->load_adapter(nn::read_peft_adapter(config.adapter));
    } else if (config.use_peft) {
      model->add_lora(lora_config(config), static_cast<uint64_t>(config.seed));
    }
    objective = make_objective ? make_objective(*model, rows, config)
                               : std::make_unique<SftObjective>(*model, rows, nullptr, config);
  }

  RunIdentity identity() const {
    return {result_settings(config), model_fingerprint(*files.weights), objective->fingerprint()};
  }
  // Until `steps` are done (none: only starts or resumes).
  std::vector<StepRecord> train(int64_t steps = INT64_MAX) {
    if (!trainer) trainer = std::make_unique<Trainer>(config, *objective, *model, identity());
    std::vector<StepRecord> records;
    while (!trainer->done() && trainer->steps_done() < steps) records.push_back(trainer->step());
    return records;
  }
  std::string parameter_bytes() const {
    std::string bytes;
    for (const nn::Parameter& parameter : model->trainable_parameters())
      bytes.append(static_cast<const char*>(parameter.master.raw()), static_cast<size_t>(parameter.master.nbytes()));
    return bytes;
  }
};

}  // namespace lathe::train
