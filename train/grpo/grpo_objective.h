// Group relative policy optimisation (Shao et al. 2024, DeepSeekMath): several completions of each prompt are sampled
// and scored, and those better than their group's mean become more likely, the others less.
//
// A draw of rows is answered at its first step: rollouts by one engine on the weights as they stand, rewards,
// advantages, the reference's log-probabilities. Then updates_per_generation() · num_iterations steps learn from it,
// each from its part of the completions, in order. What is sampled, and its log-probabilities, are the trainer's own
// numbers to the bit: before the first update every ratio is 1 (with lora_dropout 0).
//
// Ranks share the prompts of a draw and of an evaluation, each of them whole groups, and the completions of a step.
// What they find out goes to all of them, so that advantages, the loss and every metric are over all on every rank.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "nn/transformer.h"
#include "text/model_text.h"
#include "train/data_parallel.h"
#include "train/grpo/completion_scores.h"
#include "train/grpo/generation_batch.h"
#include "train/grpo/grpo_config.h"
#include "train/grpo/grpo_data.h"
#include "train/grpo/policy_forward.h"
#include "train/grpo/policy_step.h"
#include "train/grpo/shared_answers.h"
#include "train/objective.h"
#include "train/reference_model.h"
#include "train/report.h"
#include "train/step_graphs.h"

namespace lathe::train {

// Completions that a process generates at once.
int64_t rollout_sequences(const GrpoConfig& config, const DataParallel& parallel = {});
// Tokens of keys and values that a process's rollouts hold: kv_cache_tokens, or what it generates at once.
int64_t rollout_cache_tokens(const GrpoConfig& config, int64_t longest_prompt, const DataParallel& parallel = {});

class GrpoObjective final : public Objective {
 public:
  // Everything must outlive the objective but the rewards. Where beta is not 0 and config.adapter is trained further, a
  // copy of it as it is now is added to the model as "ref"; where whole weights are trained, the reference is a model
  // of its own.
  GrpoObjective(nn::Transformer& model, const GrpoConfig& config, const GrpoData& data, const text::ModelText& text,
                std::vector<NamedReward> rewards, DataParallel parallel = {});

  int64_t rows() const override { return data_.training.rows(); }
  std::vector<data::MixtureSource> sources() const override { return data_.training.sources(); }
  double seconds_reading() const override { return data_.training.seconds_reading(); }
  uint64_t fingerprint() const override { return data_.training.fingerprint(); }
  int64_t updates_per_rows() const override { return config_.updates_per_generation() * config_.num_iterations; }
  std::optional<int64_t> rows_per_draw() const override { return config_.prompts_per_generation(); }

  // Metrics by TRL's names: at a draw's first step those of the rollouts (reward, completions/…, sampling/…), at each
  // those of the loss. StepAbandoned where a reward cannot be had.
  QueuedStep accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) override;
  // num_generations_eval completions of each prompt of eval_dataset, with the same random numbers each time.
  Metrics evaluate() override;
  bool evaluates_together() const override { return true; }
  void after_update(int64_t steps_done) override;

  std::string_view state_name() const override { return "grpo"; }
  void save_state(const std::filesystem::path& folder) const override;
  void load_state(const std::filesystem::path& folder) override;
  void share_state() override;

  // Null where no step is replayed.
  const StepGraphs* graphs() const { return graphs_.get(); }
  // The newest completions with their rewards, for the report.
  const std::vector<SampleRow>& samples() const { return samples_; }

 private:
  struct Draw {
    const TrainingSet& set;
    std::span<const int64_t> rows;
    int64_t num_generations, number;
    bool asks_reference;
  };
  struct Answers {
    std::vector<data::PromptRow> prompts;  // which the scores point to
    std::vector<ScoredRollout> completions;
    CompletionScores scores;
    int64_t tokens = 0;  // of prompts and completions
  };
  Answers answer(const Draw& draw);
  AnsweredPrompts answer_own(const Draw& draw, std::span<const data::PromptRow> prompts);
  StepOutcome generate(std::span<const int64_t> rows, int64_t step);
  std::span<const ScoredRollout> completions_of(int64_t step) const;
  QueuedStep learn(int64_t step, double loss_scale);
  void add_reference(std::vector<ScoredRollout>& completions, std::span<const data::PromptRow> prompts,
                     int64_t num_generations) const;
  PolicyPass measuring_entropies(const std::shared_ptr<PolicyStep>& learnt, PolicyForwardOptions options) const;
  PolicyPass learning(const std::shared_ptr<PolicyStep>& learnt, std::pair<size_t, size_t> sequences,
                      PolicyForwardOptions options) const;
  // What a step's sequences go through, in this order.
  enum PassOfStep : size_t { entropy_pass, learning_pass, pass_count };
  using Passes = std::array<std::optional<PolicyPass>, pass_count>;
  void share_entropies(PolicyStep& learnt) const;
  void queue_repeatable(const Passes& passes, int64_t step, double loss_scale);
  PolicyForwardOptions forward_options(const std::optional<std::string>& adapter, int64_t step) const;

  nn::Transformer& model_;
  const GrpoConfig& config_;
  const GrpoData& data_;
  const text::ModelText& text_;
  std::vector<NamedReward> rewards_;
  DataParallel parallel_;
  std::vector<nn::Parameter> shared_;              // whose gradients ranks add up; empty where there is one
  std::optional<std::string> policy_, reference_;  // adapters; not given: the model's only one, or none
  std::optional<ReferenceModel> reference_model_;  // where beta is not 0 and whole weights are trained
  RolloutSampler sampler_;
  GenerationBatch batch_;
  TrainedTables tables_;
  std::unique_ptr<StepGraphs> graphs_;
  std::array<HostPart<PolicyWork>, pass_count> work_in_graph_;
  std::vector<Tensor> losses_;  // of the step that was queued last by graphs_; a replay writes to the same memory
  int64_t rows_drawn_ = 0;      // of a stream
  std::vector<SampleRow> samples_;
};

}  // namespace lathe::train
