// A step on given completions of the tiny Llama with an adapter: loss, metrics and the gradient of every matrix as
// TRL's loss and PyTorch's autograd have them (tests/golden/grpo/model.json).
#include <gtest/gtest.h>

#include <cmath>

#include "core/json_value.h"
#include "tests/train/grpo/tiny_grpo.h"

namespace lathe::train {
namespace {

using nlohmann::json;

GrpoData prompts_of(const json& golden) {
  const GrpoData random = random_prompts(4, 1);
  GrpoData data;
  for (int64_t i = 0; i < random.training.rows(); ++i) {
    data::PromptRow row = prompt_at(random.training, i);
    row.ids = golden["prompts"][static_cast<size_t>(i)].get<std::vector<int32_t>>();
    add_prompt(data.training, row);
  }
  data.longest_prompt = 20;
  return data;
}

GrpoConfig config_of(const json& golden, const json& options) {
  GrpoConfig config = tiny_grpo_config("");
  config.adapter = train::golden("lora_sft/tiny/initial_adapter").string();
  config.temperature = golden["temperature"].get<double>();
  config.per_device_train_batch_size = 4;
  config.num_generations = 2;
  config.num_iterations = 2;  // the second update learns from completions that are given as the state
  config.max_completion_length = options["max_completion_length"].get<int64_t>();
  config.loss_type = options["loss_type"].get<std::string>();
  config.importance_sampling_level = options["importance_sampling_level"].get<std::string>();
  config.beta = options["beta"].get<double>();
  config.epsilon_high = options["epsilon_high"].get<double>();
  return config;
}

// The given completions; the reference is the model without the adapter.
void give_completions(TinyGrpo& run, const json& golden) {
  GenerationBatch batch{.draw = 0, .completions = {}};
  std::vector<CompletedPrompt> sequences;
  for (size_t i = 0; i < 4; ++i)
    batch.completions.push_back({.row = static_cast<int64_t>(i),
                                 .rollout = {.ids = golden["completions"][i].get<std::vector<int32_t>>(),
                                             .logprobs = golden["old"][i].get<std::vector<float>>()},
                                 .ref_logprobs = {},
                                 .advantage = golden["advantages"][i].get<double>()});
  std::vector<data::PromptRow> prompts;
  for (int64_t i = 0; i < 4; ++i) prompts.push_back(prompt_at(run.data.training, i));
  for (size_t i = 0; i < 4; ++i) sequences.push_back({prompts[i].ids, batch.completions[i].rollout.ids});
  const auto reference =
      measure_completions(*run.model, sequences, run.config,
                          {.adapter = "", .temperature = static_cast<float>(run.config.temperature), .forward = {}});
  for (size_t i = 0; i < 4; ++i)
    batch.completions[i].ref_logprobs =
        std::make_shared<const std::vector<float>>(reference[i].logprobs.begin(), reference[i].logprobs.end());
  const TemporaryFolder folder;
  save_generation_batch(folder.path(), batch);
  run.objective->load_state(folder.path());
}

TEST(GoldenGrpo, AStepOnAModelIsTrls) {
  const json golden = json::parse(bytes_of(train::golden("grpo/model.json")));
  const std::vector<int64_t> rows = {0, 1};
  for (const json& expected : golden["cases"]) {
    SCOPED_TRACE(expected["options"].dump());
    TinyGrpo run(config_of(golden, expected["options"]), even_share, prompts_of(golden));
    give_completions(run, golden);
    const StepOutcome outcome = run.objective->accumulate(rows, 1, 1.0).outcome();
    EXPECT_NEAR(outcome.loss, expected["loss"].get<double>(), 1e-5 * std::abs(expected["loss"].get<double>()) + 1e-6);
    for (const auto& [name, value] : expected["metrics"].items())
      EXPECT_NEAR(metric_of(outcome.metrics, name), value.get<double>(), 1e-5 * (1 + value.get<double>())) << name;
    size_t compared = 0;
    for (const nn::Parameter& parameter : run.model->trainable_parameters()) {
      const Tensor gradient = parameter.leaf.grad();
      double squares = 0, wave = 0;
      for (size_t i = 0; const float value : gradient.span<float>()) {
        squares += static_cast<double>(value) * static_cast<double>(value);
        wave += static_cast<double>(value) * std::cos(static_cast<double>(i++));
      }
      const json& want = expected["gradients"].at(parameter.name);
      const double norm = want[0].get<double>();
      EXPECT_NEAR(std::sqrt(squares), norm, 1e-5 * norm) << parameter.name;
      EXPECT_NEAR(wave, want[1].get<double>(), 1e-5 * norm) << parameter.name;
      ++compared;
    }
    EXPECT_EQ(compared, expected["gradients"].size());
  }
}

// −coefficient · mean entropy through the model, at a temperature, against PyTorch's autograd.
TEST(GoldenGrpo, TheGradientOfEntropiesIsPytorchs) {
  const json golden = json::parse(bytes_of(train::golden("grpo/entropy_model.json")));
  GrpoConfig config = tiny_grpo_config("");
  config.adapter = train::golden("lora_sft/tiny/initial_adapter").string();
  TinyGrpo run(config);
  const auto prompts = golden["prompts"].get<std::vector<std::vector<int32_t>>>();
  const auto completions = golden["completions"].get<std::vector<std::vector<int32_t>>>();
  std::vector<CompletedPrompt> sequences;
  size_t tokens = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    sequences.push_back({prompts[i], completions[i]});
    tokens += completions[i].size();
  }
  PolicyForwardOptions options;
  options.temperature = golden["temperature"].get<float>();
  options.entropy_gradients = true;
  const double slope = -golden["entropy_coef"].get<double>() / static_cast<double>(tokens);
  double loss = 0;
  const PolicyPass pass = policy_pass(*run.model, sequences, run.config, options,
                                      [&](size_t, const CompletionTokens& found, CompletionGradients gradients) {
                                        for (const double entropy : found.entropies) loss += slope * entropy;
                                        std::fill(gradients.entropies.begin(), gradients.entropies.end(), slope);
                                        return loss;
                                      });
  learn_completions(pass, HostPart<PolicyWork>::of(pass.work));
  EXPECT_NEAR(loss, golden["loss"].get<double>(), 1e-6);
  for (const nn::Parameter& parameter : run.model->trainable_parameters()) {
    double squares = 0, wave = 0;
    for (size_t i = 0; const float value : parameter.leaf.grad().span<float>()) {
      squares += static_cast<double>(value) * static_cast<double>(value);
      wave += static_cast<double>(value) * std::cos(static_cast<double>(i++));
    }
    const json& want = golden["gradients"].at(parameter.name);
    const double norm = want[0].get<double>();
    EXPECT_NEAR(std::sqrt(squares), norm, 1e-5 * norm) << parameter.name;
    EXPECT_NEAR(wave, want[1].get<double>(), 1e-5 * norm) << parameter.name;
  }
}

}  // namespace
}  // namespace lathe::train
