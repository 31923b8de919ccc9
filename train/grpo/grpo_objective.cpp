#include "train/grpo/grpo_objective.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "core/atomic_write.h"
#include "core/error.h"
#include "kernels/cuda/profiler_range.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

constexpr const char* reference_adapter = "ref";
constexpr size_t sample_count = 8;
constexpr int64_t evaluation_draw = int64_t{1} << 40;  // no draw of a run gets there

RolloutOptions rollout_options(const GrpoConfig& config, const GrpoData& data, const text::ModelText& text,
                               const std::optional<std::string>& adapter) {
  RolloutOptions options;
  options.max_completion_length = config.max_completion_length;
  options.temperature = static_cast<float>(config.temperature);
  options.top_p = static_cast<float>(config.top_p);
  options.min_p = static_cast<float>(config.min_p);
  options.top_k = static_cast<int32_t>(config.top_k);
  options.stop_token_ids = text.stop_token_ids;
  options.adapter = adapter;
  options.kv_cache_tokens = rollout_cache_tokens(config, data.longest_prompt);
  return options;
}

// Between the sampler's log-probabilities and the trainer's, before anything has been learnt.
struct SamplingDifference {
  double sum = 0, largest = 0, ratio_sum = 0;
  double least_ratio = std::numeric_limits<double>::infinity(), largest_ratio = 0;
  int64_t tokens = 0, completions = 0;

  void add(std::span<const double> trained, std::span<const double> sampled) {
    double log_ratio = 0;
    for (size_t t = 0; t < trained.size(); ++t) {
      const double difference = trained[t] - sampled[t];
      sum += std::abs(difference);
      largest = std::max(largest, std::abs(difference));
      log_ratio += difference;
    }
    const double ratio = std::exp(log_ratio);
    ratio_sum += ratio;
    least_ratio = std::min(least_ratio, ratio);
    largest_ratio = std::max(largest_ratio, ratio);
    tokens += static_cast<int64_t>(trained.size());
    ++completions;
  }
  void add_to(Metrics& metrics) const {
    if (completions == 0) return;
    metrics.emplace_back("sampling/sampling_logp_difference/mean", sum / static_cast<double>(tokens));
    metrics.emplace_back("sampling/sampling_logp_difference/max", largest);
    metrics.emplace_back("sampling/importance_sampling_ratio/min", least_ratio);
    metrics.emplace_back("sampling/importance_sampling_ratio/mean", ratio_sum / static_cast<double>(completions));
    metrics.emplace_back("sampling/importance_sampling_ratio/max", largest_ratio);
  }
};

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

}  // namespace

int64_t rollout_cache_tokens(const GrpoConfig& config, int64_t longest_prompt) {
  constexpr int64_t page = nn::KvCache::default_page_size, at_once = 64;
  const int64_t longest = (longest_prompt + config.max_completion_length + page - 1) / page * page;
  if (config.kv_cache_tokens > 0) return std::max(config.kv_cache_tokens, longest);
  return longest * std::min(config.completions_per_generation(), at_once);
}

GrpoObjective::GrpoObjective(nn::Transformer& model, const GrpoConfig& config, const GrpoData& data,
                             const text::ModelText& text, std::vector<NamedReward> rewards)
    : model_(model),
      config_(config),
      data_(data),
      text_(text),
      rewards_(std::move(rewards)),
      policy_(config.beta != 0 && !config.adapter.empty() ? std::optional<std::string>(nn::default_adapter)
                                                          : std::nullopt),
      reference_(policy_ ? reference_adapter : ""),
      sampler_(model, rollout_options(config, data, text, policy_)) {
  if (config.beta != 0 && trains_whole_weights(model)) {
    reference_model_.emplace(model, config, config.sync_ref_model ? FollowsTheModel::yes : FollowsTheModel::no);
    policy_ = reference_ = std::nullopt;
  } else if (policy_) {
    model.load_adapter(model.adapter(*policy_), *reference_);
  }
}

PolicyForwardOptions GrpoObjective::forward_options(const std::optional<std::string>& adapter, int64_t step) const {
  PolicyForwardOptions options;
  options.adapter = adapter;
  options.temperature = static_cast<float>(config_.temperature);
  options.forward.checkpoint_layers = config_.checkpoints_layers();
  options.forward.adapter = {.dropout_seed = static_cast<uint64_t>(config_.seed),
                             .dropout_step = static_cast<uint32_t>(step),
                             .training = true};
  return options;
}

GrpoObjective::Answers GrpoObjective::answer(const TrainingSet& rows, std::span<const int64_t> drawn,
                                             int64_t num_generations, int64_t draw) {
  Answers answers;
  std::vector<RolloutSampler::Prompt> prompts;
  std::vector<const data::PromptRow*> row_of;
  for (const int64_t row : drawn) answers.prompts.push_back(prompt_at(rows, row));
  for (size_t i = 0; i < drawn.size(); ++i) {
    prompts.push_back({answers.prompts[i].ids, drawn[i]});
    row_of.insert(row_of.end(), static_cast<size_t>(num_generations), &answers.prompts[i]);
  }
  {
    const kernels::ProfilerRange range("rollouts");
    answers.rollouts = sampler_.sample(prompts, num_generations, static_cast<uint64_t>(config_.seed), draw);
  }
  for (size_t i = 0; i < answers.rollouts.size(); ++i)
    answers.tokens += static_cast<int64_t>(row_of[i]->ids.size() + answers.rollouts[i].ids.size());
  answers.scores = score_completions(row_of, answers.rollouts, *text_.tokenizer, rewards_,
                                     {num_generations, parse_reward_scaling(config_.scale_rewards).value(),
                                      parse_reward_aggregation(config_.multi_objective_aggregation).value()});
  return answers;
}

// Nothing of the objective changes before everything has gone well.
StepOutcome GrpoObjective::generate(std::span<const int64_t> rows, int64_t step) {
  const int64_t draw = step / updates_per_rows();
  Answers answers = answer(data_.training, rows, config_.num_generations, draw);
  GenerationBatch batch;
  batch.draw = draw;
  for (size_t i = 0; i < answers.rollouts.size(); ++i)
    batch.completions.push_back({.row = rows[i / static_cast<size_t>(config_.num_generations)],
                                 .rollout = std::move(answers.rollouts[i]),
                                 .ref_logprobs = {},
                                 .advantage = answers.scores.advantages.advantages[i]});
  if (config_.beta != 0) add_reference(batch.completions);
  if (config_.log_completions) {
    char name[64];
    std::snprintf(name, sizeof name, "completions_%05lld.jsonl", static_cast<long long>(step + 1));
    const std::filesystem::path folder = std::filesystem::path(config_.output_dir) / "completions";
    std::filesystem::create_directories(folder);
    write_file_atomically(folder / name, completion_lines(answers.scores, rewards_, step + 1));
  }
  samples_ = sample_rows(answers.scores, *text_.tokenizer, rewards_, sample_count);
  batch_ = std::move(batch);
  if (!rows.empty()) rows_drawn_ = rows.back() + 1;
  return {.loss = 0, .tokens = answers.tokens, .metrics = answers.scores.metrics};
}

std::vector<std::vector<int32_t>> GrpoObjective::prompts_of(std::span<const ScoredRollout> completions) const {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<int32_t> labels;
  for (const ScoredRollout& scored : completions)
    data_.training.append_sequence(data_.training.sequences_of_row(scored.row).first, prompts.emplace_back(), labels);
  return prompts;
}

void GrpoObjective::add_reference(std::vector<ScoredRollout>& completions) const {
  const std::vector<std::vector<int32_t>> prompts = prompts_of(completions);
  std::vector<CompletedPrompt> sequences;
  for (size_t i = 0; i < completions.size(); ++i) sequences.push_back({prompts[i], completions[i].rollout.ids});
  PolicyForwardOptions options = forward_options(reference_, 0);
  options.forward.adapter.training = false;
  auto logprobs =
      completion_logprobs(reference_model_ ? reference_model_->model() : model_, sequences, config_, options);
  for (size_t i = 0; i < completions.size(); ++i) completions[i].ref_logprobs = std::move(logprobs[i]);
}

StepOutcome GrpoObjective::accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) {
  StepOutcome outcome;
  if (step % updates_per_rows() == 0) outcome = generate(rows, step);
  if (batch_.draw != step / updates_per_rows())
    throw FormatError("the checkpoint's generation batch", -1,
                      "step " + std::to_string(step + 1) + " needs the completions of draw " +
                          std::to_string(step / updates_per_rows()) + ", found those of " +
                          std::to_string(batch_.draw));
  StepOutcome learnt = learn(step, loss_scale);
  outcome.loss = learnt.loss;
  outcome.metrics.insert(outcome.metrics.end(), learnt.metrics.begin(), learnt.metrics.end());
  if ((step + 1) % updates_per_rows() == 0) batch_ = {};
  return outcome;
}

// The quantile is that of the whole step, which is known before its first gradient: one more pass, without gradients.
EntropyFloor GrpoObjective::entropy_floor_of(std::span<const CompletedPrompt> sequences,
                                             const PolicyForwardOptions& options) const {
  if (config_.top_entropy_quantile >= 1) return {};
  std::vector<double> entropies;
  for (const CompletionTokens& tokens : measure_completions(model_, sequences, config_, options))
    entropies.insert(entropies.end(), tokens.entropies.begin(), tokens.entropies.end());
  return entropy_floor(std::move(entropies), config_.top_entropy_quantile);
}

StepOutcome GrpoObjective::learn(int64_t step, double loss_scale) {
  // The steps of a draw take its completions part by part, num_iterations times over.
  const auto parts = static_cast<size_t>(config_.updates_per_generation());
  const size_t part = static_cast<size_t>(step % updates_per_rows()) % parts, all = batch_.completions.size();
  const auto own =
      std::span(batch_.completions).subspan(all * part / parts, all * (part + 1) / parts - all * part / parts);
  const auto is_masked = [&](const ScoredRollout& scored) {
    return config_.mask_truncated_completions && scored.rollout.truncated;
  };
  const auto tokens_of = [&](std::span<const ScoredRollout> completions) {
    int64_t tokens = 0;
    for (const ScoredRollout& scored : completions)
      if (!is_masked(scored)) tokens += static_cast<int64_t>(scored.rollout.ids.size());
    return tokens;
  };
  std::vector<const ScoredRollout*> learnt;
  const std::vector<std::vector<int32_t>> prompts = prompts_of(own);
  std::vector<CompletedPrompt> sequences;
  for (const ScoredRollout& scored : own) {
    if (is_masked(scored)) continue;
    learnt.push_back(&scored);
    sequences.push_back({prompts[static_cast<size_t>(&scored - own.data())], scored.rollout.ids});
  }
  PolicyForwardOptions forward = forward_options(policy_, step);
  forward.entropy_gradients = config_.entropy_coef != 0;
  forward.loss_scale = loss_scale;
  PolicyLoss loss(policy_loss_options(config_), {.completions = static_cast<int64_t>(own.size()),
                                                 .tokens = tokens_of(own),
                                                 .generation_tokens = tokens_of(batch_.completions),
                                                 .updates_per_generation = static_cast<double>(parts),
                                                 .entropy = entropy_floor_of(sequences, forward)});
  for (const ScoredRollout& scored : own)
    if (is_masked(scored))
      loss.add({.logprobs = {}, .old_logprobs = {}, .ref_logprobs = {}, .advantage = scored.advantage, .masked = true},
               {});
  SamplingDifference difference;
  double entropy = 0;
  const bool entropies_count = config_.entropy_coef != 0 || config_.top_entropy_quantile < 1;
  learn_completions(
      model_, sequences, config_, forward,
      [&](size_t i, const CompletionTokens& tokens, CompletionGradients gradients) {
        const std::vector<double> old = doubles(learnt[i]->rollout.logprobs), ref = doubles(learnt[i]->ref_logprobs);
        loss.add({.logprobs = tokens.logprobs,
                  .old_logprobs = old,
                  .ref_logprobs = ref,
                  .entropies = entropies_count ? std::span<const double>(tokens.entropies) : std::span<const double>(),
                  .advantage = learnt[i]->advantage},
                 gradients.logprobs, gradients.entropies);
        difference.add(tokens.logprobs, old);
        for (const double nats : tokens.entropies) entropy += nats;
      });
  StepOutcome outcome;
  outcome.loss = loss.loss();
  outcome.metrics = loss.metrics();
  outcome.metrics.emplace_back("entropy", entropy / static_cast<double>(std::max<int64_t>(1, tokens_of(own))));
  if (step % updates_per_rows() == 0) difference.add_to(outcome.metrics);
  return outcome;
}

Metrics GrpoObjective::evaluate() {
  if (!data_.evaluation) return {};
  std::vector<int64_t> rows(static_cast<size_t>(data_.evaluation->rows()));
  std::iota(rows.begin(), rows.end(), 0);
  const int64_t generations = config_.num_generations_eval > 0 ? config_.num_generations_eval : config_.num_generations;
  Metrics metrics = answer(*data_.evaluation, rows, generations, evaluation_draw).scores.metrics;
  for (auto& [name, value] : metrics) name = "eval_" + name;
  return metrics;
}

void GrpoObjective::after_update(int64_t steps_done) {
  if (config_.sync_ref_model && steps_done % config_.ref_model_sync_steps == 0)
    reference_model_->mix(model_, config_.ref_model_mixup_alpha);
}

void GrpoObjective::save_state(const std::filesystem::path& folder) const {
  save_generation_batch(folder, batch_);
  // What is still learnt from is read once more.
  if (data_.training.stream() != nullptr)
    data_.training.stream()->save(folder, batch_.completions.empty() ? rows_drawn_ : batch_.completions.front().row);
  if (config_.sync_ref_model) reference_model_->save(folder);
}

void GrpoObjective::load_state(const std::filesystem::path& folder) {
  batch_ = load_generation_batch(folder, rows(), model_.config().vocab_size);
  if (data_.training.stream() != nullptr) data_.training.stream()->load(folder);
  if (!batch_.completions.empty()) rows_drawn_ = batch_.completions.back().row + 1;
  if (config_.sync_ref_model) reference_model_->load(folder);
}

}  // namespace lathe::train
