// A DPO run on the tiny golden Llama: pairs of random ids that share their prompts.
#pragma once

#include <memory>
#include <numeric>

#include "tests/train/tiny_run.h"
#include "train/dpo/dpo_objective.h"

namespace lathe::train {

inline void add_pair(TrainingSet& set, const std::vector<int32_t>& prompt, const std::vector<int32_t>& chosen,
                     const std::vector<int32_t>& rejected) {
  const auto joined = [&](const std::vector<int32_t>& completion, bool labels) {
    std::vector<int32_t> all = labels ? std::vector<int32_t>(prompt.size(), -100) : prompt;
    all.insert(all.end(), completion.begin(), completion.end());
    return all;
  };
  set.add_row(joined(chosen, false), joined(chosen, true));
  set.add_to_row(joined(rejected, false), joined(rejected, true));
}

inline TrainingSet random_pairs(int64_t rows, uint64_t seed) {
  TrainingSet set;
  RandomStream random(seed, RandomPurpose::test);
  const auto ids = [&] {
    std::vector<int32_t> tokens;
    for (uint64_t i = 0, length = 1 + random.below(12); i < length; ++i)
      tokens.push_back(static_cast<int32_t>(random.below(320)));
    return tokens;
  };
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<int32_t> prompt = ids(), chosen = ids(), rejected = ids();
    add_pair(set, prompt, chosen, rejected);
  }
  return set;
}

inline DpoConfig tiny_dpo_config(const std::filesystem::path& output_dir) {
  DpoConfig config;
  config.model = golden("tiny_llama/untied").string();
  config.dataset = "pairs";
  config.output_dir = output_dir.string();
  config.dtype = "float32";
  config.learning_rate = 5e-3;
  config.per_device_train_batch_size = 8;
  config.max_steps = 5;
  config.logging_steps = 1;
  config.lora_r = 4;
  return config;
}

struct TinyDpo {
  DpoConfig config;
  DpoData data;
  nn::ModelFiles files;
  std::unique_ptr<nn::Transformer> model;
  std::unique_ptr<DpoObjective> objective;
  std::unique_ptr<Trainer> trainer;

  // `start` is the adapter's directory where it is not config.adapter: its reference is the model without it.
  explicit TinyDpo(DpoConfig settings, TrainingSet pairs = random_pairs(11, 1), const std::string& start = {},
                   Device device = {})
      : config(resolved(std::move(settings))) {
    data.training = std::move(pairs);
    data.evaluation = random_pairs(5, 2);
    files = nn::open_model_files(config.model);
    nn::TransformerOptions options;
    options.device = device;
    model = tiny_model(config, files, start.empty() ? config.adapter : start, options);
    objective = std::make_unique<DpoObjective>(*model, config, data, model_fingerprint(*files.weights));
  }

  std::vector<StepRecord> train(int64_t steps = INT64_MAX) { return train_steps(*this, steps); }
  std::string parameter_bytes() const { return parameter_bytes_of(*model); }
};

}  // namespace lathe::train
