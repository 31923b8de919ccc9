// A GRPO run on the tiny golden Llama: prompts of random ids, and a reward that counts even ones.
#pragma once

#include <algorithm>
#include <memory>

#include "data/tokenizer/tokenizer.h"
#include "tests/train/tiny_run.h"
#include "train/grpo/grpo_objective.h"

namespace lathe::train {

inline text::ModelText tiny_text() {
  text::ModelText text;
  text.tokenizer = data::Tokenizer::from_directory(golden("tokenizer/byte_level"));
  for (int32_t id = 0; id < 40; ++id) text.stop_token_ids.push_back(id);  // one token in eight: short completions
  text.vocab_size = 320;
  return text;
}

inline GrpoData random_prompts(int64_t rows, uint64_t seed) {
  GrpoData data;
  RandomStream random(seed, RandomPurpose::test);
  for (int64_t row = 0; row < rows; ++row) {
    data::PromptRow prompt;
    prompt.file = "prompts.jsonl";
    prompt.line = row + 1;
    prompt.prompt = "?";
    prompt.columns = nlohmann::ordered_json::object();
    for (uint64_t i = 0, length = 1 + random.below(20); i < length; ++i)
      prompt.ids.push_back(static_cast<int32_t>(random.below(320)));
    data.longest_prompt = std::max(data.longest_prompt, static_cast<int64_t>(prompt.ids.size()));
    add_prompt(data.training, prompt);
  }
  return data;
}

inline Rewards even_share(std::span<const ScoredCompletion> completions) {
  Rewards rewards;
  for (const ScoredCompletion& completion : completions) {
    const auto even =
        std::count_if(completion.ids.begin(), completion.ids.end(), [](int32_t id) { return id % 2 == 0; });
    rewards.emplace_back(static_cast<double>(even) / static_cast<double>(completion.ids.size()));
  }
  return rewards;
}

inline GrpoConfig tiny_grpo_config(const std::filesystem::path& output_dir) {
  GrpoConfig config;
  config.model = golden("tiny_llama/untied").string();
  config.dataset = "prompts";
  config.reward_funcs = "length";  // not read here: the reward is given
  config.output_dir = output_dir.string();
  config.dtype = "float32";
  config.learning_rate = 1e-2;
  config.per_device_train_batch_size = 8;
  config.num_generations = 4;
  config.max_completion_length = 12;
  config.max_steps = 4;
  config.logging_steps = 1;
  config.lora_r = 4;
  return config;
}

struct TinyGrpo {
  GrpoConfig config;
  GrpoData data;
  text::ModelText text = tiny_text();
  nn::ModelFiles files;
  std::unique_ptr<nn::Transformer> model;
  std::unique_ptr<GrpoObjective> objective;
  std::unique_ptr<Trainer> trainer;

  explicit TinyGrpo(GrpoConfig settings, RewardFunction reward = even_share, GrpoData prompts = random_prompts(7, 1),
                    Device device = {})
      : config(resolved(std::move(settings))), data(std::move(prompts)) {
    files = nn::open_model_files(config.model);
    nn::TransformerOptions options;
    options.device = device;
    options.quantized_linears = config.quantization();
    options.max_positions = data.longest_prompt + config.max_completion_length;
    model = tiny_model(config, files, config.adapter, options);
    objective = std::make_unique<GrpoObjective>(*model, config, data, text,
                                                std::vector<NamedReward>{{"even", std::move(reward)}});
  }

  std::vector<StepRecord> train(int64_t steps = INT64_MAX) { return train_steps(*this, steps); }
  std::string parameter_bytes() const { return parameter_bytes_of(*model); }
};

}  // namespace lathe::train
