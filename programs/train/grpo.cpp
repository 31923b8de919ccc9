// lathe-train grpo: what is group relative policy optimisation's own in a run.
#include <fmt/format.h>

#include <algorithm>

#include "programs/train/commands.h"
#include "programs/train/run.h"
#include "train/grpo/grpo_objective.h"

namespace lathe::programs {
namespace {

class Grpo final : public Method {
 public:
  explicit Grpo(const train::GrpoConfig& config) : config_(config) {}

  std::string title() const override { return "group relative policy optimisation"; }

  std::optional<AssumedRow> assumed_row() const override {
    if (!config_.dataset.empty()) return std::nullopt;
    const int64_t prompt = config_.max_prompt_length, tokens = prompt + config_.max_completion_length;
    return AssumedRow{
        .text = fmt::format("prompts of {} tokens and completions of {}", prompt, config_.max_completion_length),
        .learnt = "completions",
        .tokens = tokens,
        .longest_sequence = tokens,
        .kv_cache_tokens = train::rollout_cache_tokens(config_, prompt, parallel_),
        .sequences_at_once = train::rollout_sequences(config_, parallel_)};
  }

  RowFacts load_rows(const text::ModelText& text) override {
    text_ = text;
    data_ = train::load_grpo_data(config_, text_, parallel_);
    rewards_ = train::make_rewards(config_, config_.max_completion_length);
    RowFacts facts;
    facts.rows = data_.training.rows();
    facts.updates_per_rows = config_.updates_per_generation() * config_.num_iterations;
    facts.rows_per_draw = config_.prompts_per_generation();
    facts.learnt = "completions";
    facts.longest_sequence = data_.longest_prompt + config_.max_completion_length;
    facts.longest_setting = "max_completion_length";
    facts.largest_forward_tokens = largest_forward();
    facts.kv_cache_tokens = train::rollout_cache_tokens(config_, data_.longest_prompt, parallel_);
    facts.sequences_at_once = train::rollout_sequences(config_, parallel_);
    facts.warnings = data_.warnings;
    if (const int64_t prompts = config_.prompts_per_generation(); prompts < parallel_.world_size())
      facts.warnings.push_back(
          fmt::format("a generation batch has {} prompts, which one rank each answers: {} of {} ranks generate nothing",
                      prompts, parallel_.world_size() - prompts, parallel_.world_size()));
    std::string names;
    for (const train::NamedReward& reward : rewards_)
      names += fmt::format("{}{} × {}", names.empty() ? "" : ", ", reward.weight, reward.name);
    facts.plan = {fmt::format("{}: {} prompts of up to {} tokens", config_.dataset, facts.rows, data_.longest_prompt),
                  fmt::format("{} completions at once, {} of each prompt, of up to {} tokens; reward: {}",
                              config_.completions_per_generation(), config_.num_generations,
                              config_.max_completion_length, names)};
    if (data_.training.stream() != nullptr)
      facts.plan[0] = fmt::format("{}: a stream, of which {} prompts of up to {} tokens are drawn", config_.dataset,
                                  facts.rows, data_.longest_prompt);
    facts.counts = {{"num_generations", config_.num_generations},
                    {"generation_batch_size", config_.completions_per_generation()}};
    facts.report = {{"dataset", train::dataset_title(config_.dataset)},
                    {"prompts", fmt::format("{}, {} completions each", facts.rows, config_.num_generations)},
                    {"reward", names}};
    if (data_.evaluation)
      facts.plan.push_back(
          fmt::format("{}: {} prompts to evaluate on", config_.eval_dataset, data_.evaluation->rows()));
    return facts;
  }

  std::optional<train::FollowsTheModel> reference() const override {
    if (config_.beta == 0 || (config_.use_peft && config_.lora_modules_to_save.empty())) return std::nullopt;
    return config_.sync_ref_model ? train::FollowsTheModel::yes : train::FollowsTheModel::no;
  }

  std::unique_ptr<train::Objective> make_objective(nn::Transformer& model, uint64_t /*fingerprint*/) override {
    auto objective =
        std::make_unique<train::GrpoObjective>(model, config_, data_, text_, std::move(rewards_), parallel_);
    objective_ = objective.get();
    return objective;
  }

  void complete(train::ReportContents& report) const override {
    report.samples_heading = "The last completions (coloured) and their rewards";
    report.samples = objective_->samples();
  }

 private:
  int64_t largest_forward() const {
    const int64_t longest = data_.longest_prompt + config_.max_completion_length;
    const int64_t batch = longest * config_.per_device_train_batch_size;
    if (config_.max_tokens_per_forward == 0) return batch;
    return std::min(batch, std::max(config_.max_tokens_per_forward, longest));
  }

  const train::GrpoConfig& config_;
  text::ModelText text_;
  train::GrpoData data_;
  std::vector<train::NamedReward> rewards_;
  const train::GrpoObjective* objective_ = nullptr;  // the run's, which ends after complete()
};

}  // namespace

void add_grpo(CLI::App& app) {
  CLI::App* command = add_method<train::GrpoConfig, Grpo>(
      app, "group relative policy optimisation: let the model try, and reward what is right");
  command->footer(
      "Examples:\n"
      "  lathe-train grpo --model DIR --dataset prompts.jsonl --reward_funcs number --output_dir runs/sums\n"
      "  lathe-train grpo --model DIR --dataset prompts.jsonl --reward_command 'python3 judge.py' --output_dir runs/own\n"
      "  mpirun -n 4 lathe-train grpo --model DIR --dataset prompts.jsonl --reward_funcs number --output_dir runs/four\n"
      "  lathe-train grpo --config examples/arithmetic/grpo.yaml --model DIR --output_dir runs/arithmetic --resume\n"
      "  lathe-train grpo --model DIR --reward_funcs number --dry_run   (of which only config.json need be there)\n"
      "Names and defaults are TRL's where it has one; '-' and '_' are alike.");
}

}  // namespace lathe::programs
