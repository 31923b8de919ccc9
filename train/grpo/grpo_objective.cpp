#include "train/grpo/grpo_objective.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <unordered_map>

#include "core/atomic_write.h"
#include "core/error.h"
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/profiler_range.h"
#include "kernels/cuda/runtime.h"
#include "train/row_order.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

constexpr const char* reference_adapter = "ref";
constexpr size_t sample_count = 8;
constexpr int64_t evaluation_draw = int64_t{1} << 40;  // no draw of a run gets there

RolloutOptions rollout_options(const GrpoConfig& config, const GrpoData& data, const text::ModelText& text,
                               const std::optional<std::string>& adapter, const DataParallel& parallel) {
  RolloutOptions options;
  options.max_completion_length = config.max_completion_length;
  options.temperature = static_cast<float>(config.temperature);
  options.top_p = static_cast<float>(config.top_p);
  options.min_p = static_cast<float>(config.min_p);
  options.top_k = static_cast<int32_t>(config.top_k);
  options.stop_token_ids = text.stop_token_ids;
  options.adapter = adapter;
  options.kv_cache_tokens = rollout_cache_tokens(config, data.longest_prompt, parallel);
  options.max_sequences = rollout_sequences(config, parallel);
  return options;
}

}  // namespace

int64_t rollout_sequences(const GrpoConfig& config, const DataParallel& parallel) {
  constexpr int64_t at_once = 64;
  const int64_t processes = parallel.several() ? parallel.world_size() : 1;
  const int64_t prompts = (config.prompts_per_generation() + processes - 1) / processes;
  return std::min(prompts * config.num_generations, at_once);
}

int64_t rollout_cache_tokens(const GrpoConfig& config, int64_t longest_prompt, const DataParallel& parallel) {
  constexpr int64_t page = nn::KvCache::default_page_size;
  const int64_t longest = (longest_prompt + config.max_completion_length + page - 1) / page * page;
  if (config.kv_cache_tokens > 0) return std::max(config.kv_cache_tokens, longest);
  return longest * rollout_sequences(config, parallel);
}

GrpoObjective::GrpoObjective(nn::Transformer& model, const GrpoConfig& config, const GrpoData& data,
                             const text::ModelText& text, std::vector<NamedReward> rewards, DataParallel parallel)
    : model_(model),
      config_(config),
      data_(data),
      text_(text),
      rewards_(std::move(rewards)),
      parallel_(parallel),
      policy_(config.beta != 0 && !config.adapter.empty() ? std::optional<std::string>(nn::default_adapter)
                                                          : std::nullopt),
      reference_(policy_ ? reference_adapter : ""),
      sampler_(model, rollout_options(config, data, text, policy_, parallel)) {
  if (parallel_.world_size() > 1) shared_ = model.trainable_parameters();
  if (repeats_its_steps(model, config, parallel_)) {
    tables_ = TrainedTables::of(model);
    graphs_ = std::make_unique<StepGraphs>(model.device(), model.trainable_parameters());
  }
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

GrpoObjective::Answers GrpoObjective::answer(const Draw& draw) {
  if (graphs_ != nullptr) graphs_->forget();
  if (draw.set.stream() != nullptr && !draw.rows.empty())
    draw.set.sequences_of_row(draw.rows.back());  // read by all processes alike
  Answers answers;
  for (const int64_t row : draw.rows) answers.prompts.push_back(prompt_at(draw.set, row));
  AnsweredPrompts all = answers_of_all(
      parallel_, [&] { return answer_own(draw, answers.prompts); }, draw.set.rows(), model_.config().vocab_size);
  answers.completions = std::move(all.completions);
  std::vector<ScoredCompletion> scored =
      scored_completions(answers.prompts, answers.completions, std::move(all.texts), draw.num_generations);
  for (const ScoredCompletion& completion : scored)
    answers.tokens += static_cast<int64_t>(completion.row->ids.size() + completion.ids.size());
  answers.scores = score_completions(std::move(scored), std::move(all.rewards), rewards_,
                                     {draw.num_generations, parse_reward_scaling(config_.scale_rewards).value(),
                                      parse_reward_aggregation(config_.multi_objective_aggregation).value()});
  for (size_t i = 0; i < answers.completions.size(); ++i)
    answers.completions[i].advantage = answers.scores.advantages.advantages[i];
  return answers;
}

// Of the ranks that this process carries out.
AnsweredPrompts GrpoObjective::answer_own(const Draw& draw, std::span<const data::PromptRow> prompts) {
  const auto [begin, end] = part_of_ranks(prompts.size(), parallel_.ranks(), parallel_.world_size());
  const std::span<const data::PromptRow> own = prompts.subspan(begin, end - begin);
  std::vector<RolloutSampler::Prompt> sampled;
  std::unordered_map<int64_t, int64_t> occurrences;  // of a row: a mixture may draw it twice
  for (size_t i = 0; i < end; ++i) {
    const int64_t row = draw.rows[i], occurrence = occurrences[row]++;
    if (i >= begin) sampled.push_back({prompts[i].ids, row, occurrence});
  }
  AnsweredPrompts answered;
  {
    const kernels::ProfilerRange range("rollouts");
    for (Rollout& rollout :
         sampler_.sample(sampled, draw.num_generations, static_cast<uint64_t>(config_.seed), draw.number)) {
      const int64_t prompt = std::ssize(answered.completions) / draw.num_generations;
      answered.completions.push_back({.row = sampled[static_cast<size_t>(prompt)].stream,
                                      .rollout = std::move(rollout),
                                      .ref_logprobs = {},
                                      .advantage = 0});
    }
  }
  if (draw.asks_reference) add_reference(answered.completions, own, draw.num_generations);  // while rewards are had
  answered.texts = completion_texts(answered.completions, *text_.tokenizer);
  answered.rewards =
      rewards_of(scored_completions(own, answered.completions, answered.texts, draw.num_generations), rewards_);
  return answered;
}

// Nothing of the objective changes before everything has gone well.
StepOutcome GrpoObjective::generate(std::span<const int64_t> rows, int64_t step) {
  const int64_t number = step / updates_per_rows();
  Answers answers = answer({data_.training, rows, config_.num_generations, number, config_.beta != 0});
  if (config_.log_completions && parallel_.is_main_process()) {
    char name[64];
    std::snprintf(name, sizeof name, "completions_%05lld.jsonl", static_cast<long long>(step) + 1);
    const std::filesystem::path folder = std::filesystem::path(config_.output_dir) / "completions";
    std::filesystem::create_directories(folder);
    write_file_atomically(folder / name, completion_lines(answers.scores, rewards_, step + 1));
  }
  samples_ = sample_rows(answers.scores, *text_.tokenizer, rewards_, sample_count);
  batch_ = {number, std::move(answers.completions)};
  if (!rows.empty()) rows_drawn_ = rows.back() + 1;
  return {.loss = 0, .tokens = answers.tokens, .metrics = answers.scores.metrics};
}

// Queues what writes their log-probabilities.
void GrpoObjective::add_reference(std::vector<ScoredRollout>& completions, std::span<const data::PromptRow> prompts,
                                  int64_t num_generations) const {
  std::vector<CompletedPrompt> sequences;
  for (size_t i = 0; i < completions.size(); ++i)
    sequences.push_back({prompts[i / static_cast<size_t>(num_generations)].ids, completions[i].rollout.ids});
  PolicyForwardOptions options = forward_options(reference_, 0);
  options.forward.adapter.training = false;
  std::vector<std::shared_ptr<std::vector<float>>> found;
  for (ScoredRollout& completion : completions)
    completion.ref_logprobs = found.emplace_back(std::make_shared<std::vector<float>>());
  const PolicyPass pass = policy_pass(reference_model_ ? reference_model_->model() : model_, sequences, config_,
                                      options, [found](size_t i, const CompletionTokens& tokens, CompletionGradients) {
                                        found[i]->assign(tokens.logprobs.begin(), tokens.logprobs.end());
                                        return 0.0;
                                      });
  queue_completions(pass, HostPart<PolicyWork>::of(pass.work));
  if (parallel_.several()) kernels::synchronize(model_.device());  // they are sent to the others
}

QueuedStep GrpoObjective::accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) {
  StepOutcome generated;
  if (step % updates_per_rows() == 0) generated = generate(rows, step);
  if (batch_.draw != step / updates_per_rows())
    throw FormatError("the checkpoint's generation batch", -1,
                      "step " + std::to_string(step + 1) + " needs the completions of draw " +
                          std::to_string(step / updates_per_rows()) + ", found those of " +
                          std::to_string(batch_.draw));
  QueuedStep queued = learn(step, loss_scale);
  queued.outcome = [generated = std::move(generated), learnt_outcome = std::move(queued.outcome)] {
    StepOutcome outcome = generated;
    const StepOutcome learnt = learnt_outcome();
    outcome.loss = learnt.loss;
    outcome.metrics.insert(outcome.metrics.end(), learnt.metrics.begin(), learnt.metrics.end());
    return outcome;
  };
  if ((step + 1) % updates_per_rows() == 0) batch_ = {};
  return queued;
}

// The steps of a draw take its completions part by part, num_iterations times over.
std::span<const ScoredRollout> GrpoObjective::completions_of(int64_t step) const {
  const int64_t parts = config_.updates_per_generation(), part = step % updates_per_rows() % parts;
  const auto [begin, end] = part_of_ranks(batch_.completions.size(), {part, part + 1}, parts);
  return std::span(batch_.completions).subspan(begin, end - begin);
}

// The quantile of entropies is the whole step's, known before its first gradient: one more pass, without gradients.
PolicyPass GrpoObjective::measuring_entropies(const std::shared_ptr<PolicyStep>& learnt,
                                              PolicyForwardOptions options) const {
  const auto [begin, end] = learnt->part_of(parallel_, parallel_.ranks());
  options.first_sample = static_cast<int32_t>(begin);
  return policy_pass(model_, learnt->sequences().subspan(begin, end - begin), config_, options,
                     [learnt, first = begin, last = end - 1, alone = !parallel_.several()](
                         size_t i, const CompletionTokens& tokens, CompletionGradients) {
                       learnt->set(first + i, tokens);
                       if (alone && first + i == last) learnt->set_entropy_floor();
                       return 0.0;
                     });
}

PolicyPass GrpoObjective::learning(const std::shared_ptr<PolicyStep>& learnt, std::pair<size_t, size_t> sequences,
                                   PolicyForwardOptions options) const {
  options.first_sample = static_cast<int32_t>(sequences.first);
  return policy_pass(
      model_, learnt->sequences().subspan(sequences.first, sequences.second - sequences.first), config_, options,
      [learnt, first = sequences.first](size_t i, const CompletionTokens& tokens, CompletionGradients room) {
        learnt->set(first + i, tokens);
        return learnt->gradients_of(first + i, room);
      });
}

QueuedStep GrpoObjective::learn(int64_t step, double loss_scale) {
  const auto learnt = std::make_shared<PolicyStep>(config_, batch_, completions_of(step), data_.training);
  PolicyForwardOptions options = forward_options(policy_, step);
  options.entropy_gradients = config_.entropy_coef != 0;
  options.loss_scale = loss_scale;
  Passes passes;
  if (config_.top_entropy_quantile < 1) passes[entropy_pass] = measuring_entropies(learnt, options);
  QueuedStep queued;
  if (graphs_ != nullptr) {
    passes[learning_pass] = learning(learnt, {0, learnt->sequences().size()}, options);
    queue_repeatable(passes, step, loss_scale);
    queued.losses = losses_;
  } else {
    if (const auto& pass = passes[entropy_pass]) {
      queue_completions(*pass, HostPart<PolicyWork>::of(pass->work));
      share_entropies(*learnt);
    }
    RankGradients gradients(parallel_, shared_);
    for (auto [rank, last] = parallel_.ranks(); rank < last; ++rank) {
      const PolicyPass pass = learning(learnt, learnt->part_of(parallel_, {rank, rank + 1}), options);
      for (Tensor& loss : learn_completions(pass, HostPart<PolicyWork>::of(pass.work)))
        queued.losses.push_back(std::move(loss));
      gradients.end_rank();
    }
    gradients.end_step();
  }
  queued.outcome = [this, learnt, is_first_of_draw = step % updates_per_rows() == 0] {
    kernels::synchronize(model_.device());
    learnt->share(parallel_);
    return learnt->outcome(is_first_of_draw);
  };
  return queued;
}

void GrpoObjective::share_entropies(PolicyStep& learnt) const {
  if (!parallel_.several()) return;
  kernels::synchronize(model_.device());
  learnt.share(parallel_);
  learnt.set_entropy_floor();
}

// Fills losses_.
void GrpoObjective::queue_repeatable(const Passes& passes, int64_t step, double loss_scale) {
  StepNumbers numbers(loss_scale, static_cast<uint32_t>(step), tables_);
  for (const std::optional<PolicyPass>& pass : passes) {
    numbers.separate();
    if (!pass) continue;
    for (const MicroBatch& batch : pass->batches) numbers.add(batch);
  }
  const auto queue = [&](StoredNumbers* stored) {
    const auto work = [&](PassOfStep pass) {
      return stored != nullptr ? work_in_graph_[pass] : HostPart<PolicyWork>::of(passes[pass]->work);
    };
    if (passes[entropy_pass]) queue_completions(*passes[entropy_pass], work(entropy_pass), stored);
    losses_ = learn_completions(*passes[learning_pass], work(learning_pass), stored);
  };
  if (!numbers.within(model_.config().vocab_size)) return queue(nullptr);
  graphs_->run(numbers, queue, [&] {
    for (size_t i = 0; i < pass_count; ++i)
      if (passes[i]) work_in_graph_[i].queue_put(model_.device(), passes[i]->work);
  });
}

Metrics GrpoObjective::evaluate() {
  if (!data_.evaluation) return {};
  std::vector<int64_t> rows(static_cast<size_t>(data_.evaluation->rows()));
  std::iota(rows.begin(), rows.end(), 0);
  const int64_t generations = config_.num_generations_eval > 0 ? config_.num_generations_eval : config_.num_generations;
  Metrics metrics = answer({*data_.evaluation, rows, generations, evaluation_draw, false}).scores.metrics;
  for (auto& [name, value] : metrics) name = "eval_" + name;
  return metrics;
}

void GrpoObjective::after_update(int64_t steps_done) {
  if (config_.sync_ref_model && steps_done % config_.ref_model_sync_steps == 0)
    reference_model_->mix(model_, config_.ref_model_mixup_alpha);
}

void GrpoObjective::save_state(const std::filesystem::path& folder) const {
  kernels::synchronize(model_.device());
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

void GrpoObjective::share_state() {
  const std::string text =
      parallel_.text_from_main_process(parallel_.is_main_process() ? generation_batch_text(batch_) : std::string());
  batch_ = read_generation_batch(text, "what rank 0 sent", rows(), model_.config().vocab_size);
  rows_drawn_ = parallel_.from_main_process(rows_drawn_);
  if (data_.training.stream() != nullptr) data_.training.stream()->share_place();
  if (config_.sync_ref_model) reference_model_->share(parallel_);
}

}  // namespace lathe::train
