#include "train/dpo/dpo_objective.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/dtype.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/runtime.h"
#include "train/row_order.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

constexpr const char* reference_adapter = "ref";

// Of the values that the adapter trains, their names, and its scale.
uint64_t adapter_hash(nn::Transformer& model, const nn::LoraConfig& config, uint64_t seed) {
  uint64_t hash = seed;
  for (const nn::Parameter& parameter : model.trainable_parameters()) {
    const Tensor master = kernels::moved(parameter.master, {});
    hash = XXH64(parameter.name.data(), parameter.name.size(), hash);
    hash = XXH64(master.raw(), static_cast<size_t>(master.nbytes()), hash);
    const double scaling = config.scaling_of(parameter.name);
    hash = XXH64(&scaling, sizeof scaling, hash);
  }
  return hash;
}

std::vector<int64_t> all_rows(const TrainingSet& set) {
  std::vector<int64_t> rows(static_cast<size_t>(set.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

StepPairs totals_of(std::span<const PreferencePair> pairs) {
  StepPairs totals;
  for (const PreferencePair& pair : pairs) {
    ++totals.pairs;
    totals.chosen_tokens += pair.chosen_tokens;
  }
  return totals;
}

// Tokens that a completion's loss counts.
int64_t labels_of(const TrainingSet& set, int64_t sequence) {
  std::vector<int32_t> ids, labels;
  set.append_sequence(sequence, ids, labels);
  return std::count_if(labels.begin() + 1, labels.end(), [](int32_t label) { return label >= 0; });
}

// As totals_of(), before anything runs.
StepPairs totals_of(const TrainingSet& set, std::span<const int64_t> rows) {
  StepPairs totals;
  for (const int64_t row : rows) {
    ++totals.pairs;
    totals.chosen_tokens += labels_of(set, set.sequences_of_row(row).first);
  }
  return totals;
}

// Of use_weighting; 1 where the sums for it were not made.
double weight_of(const PairSums& pair) {
  const auto of = [](const CompletionSums& completion) {
    return std::exp(completion.aligned_logps / static_cast<double>(std::max<int64_t>(1, completion.tokens)));
  };
  return of(pair.chosen) * of(pair.rejected);
}

std::vector<PreferencePair> with_reference(std::span<const PairSums> sums, std::span<const ReferencePair> references) {
  std::vector<PreferencePair> pairs;
  for (size_t i = 0; i < sums.size(); ++i)
    pairs.push_back({.chosen_logps = sums[i].chosen.logps,
                     .rejected_logps = sums[i].rejected.logps,
                     .ref_chosen_logps = references[i].chosen_logps,
                     .ref_rejected_logps = references[i].rejected_logps,
                     .chosen_tokens = sums[i].chosen.tokens,
                     .rejected_tokens = sums[i].rejected.tokens,
                     .weight = weight_of(sums[i]),
                     .chosen_unweighted_logps = sums[i].chosen.unweighted_logps});
  return pairs;
}

std::vector<ReferencePair> references_of(std::span<const int64_t> rows, const ReferenceLogps& known) {
  std::vector<ReferencePair> references;
  for (const int64_t row : rows) references.push_back(known[row]);
  return references;
}

// Calls `number` with each number of a pair, in one order. Counts are exact in double.
void for_each_number(PairSums& sums, ReferencePair& reference, const auto& number) {
  for (CompletionSums* const completion : {&sums.chosen, &sums.rejected}) {
    for (double* const sum : {&completion->logps, &completion->unweighted_logps, &completion->aligned_logps,
                              &completion->entropy, &completion->logits})
      number(*sum);
    number(completion->correct);
    number(completion->tokens);
  }
  number(sums.tokens);
  number(reference.chosen_logps);
  number(reference.rejected_logps);
}

// Every process has the pairs [begin, end) of a step, and then all.
void share_pairs(const DataParallel& parallel, std::span<PairSums> sums, std::span<ReferencePair> references,
                 size_t begin, size_t end) {
  if (!parallel.several() || sums.empty()) return;
  std::vector<double> numbers;
  for (size_t i = 0; i < sums.size(); ++i)
    for_each_number(sums[i], references[i], [&](auto value) { numbers.push_back(static_cast<double>(value)); });
  const size_t of_pair = numbers.size() / sums.size();
  parallel.gather(numbers, begin * of_pair, end * of_pair);
  auto next = numbers.begin();
  for (size_t i = 0; i < sums.size(); ++i)
    for_each_number(sums[i], references[i],
                    [&](auto& value) { value = static_cast<std::remove_reference_t<decltype(value)>>(*next++); });
}

// Means over the rows, or over the tokens of their completions.
Metrics metrics_of(std::span<const PairSums> sums, std::span<const PreferencePair> pairs, double beta) {
  CompletionSums chosen, rejected;
  double reward_chosen = 0, reward_rejected = 0;
  int64_t right = 0;
  const auto add = [](CompletionSums& total, const CompletionSums& own) {
    total.logps += own.logps;
    total.entropy += own.entropy;
    total.logits += own.logits;
    total.correct += own.correct;
    total.tokens += own.tokens;
  };
  for (size_t i = 0; i < pairs.size(); ++i) {
    add(chosen, sums[i].chosen);
    add(rejected, sums[i].rejected);
    const double of_chosen = beta * pairs[i].chosen_logratio(), of_rejected = beta * pairs[i].rejected_logratio();
    reward_chosen += of_chosen;
    reward_rejected += of_rejected;
    right += of_chosen > of_rejected;
  }
  const auto rows = static_cast<double>(pairs.size());
  const auto chosen_tokens = static_cast<double>(chosen.tokens), rejected_tokens = static_cast<double>(rejected.tokens);
  return {{"entropy", (chosen.entropy + rejected.entropy) / (chosen_tokens + rejected_tokens)},
          {"mean_token_accuracy", static_cast<double>(chosen.correct) / chosen_tokens},
          {"rewards/chosen", reward_chosen / rows},
          {"rewards/rejected", reward_rejected / rows},
          {"rewards/accuracies", static_cast<double>(right) / rows},
          {"rewards/margins", (reward_chosen - reward_rejected) / rows},
          {"logps/chosen", chosen.logps / rows},
          {"logps/rejected", rejected.logps / rows},
          {"logits/chosen", chosen.logits / chosen_tokens},
          {"logits/rejected", rejected.logits / rejected_tokens}};
}

}  // namespace

DpoObjective::DpoObjective(nn::Transformer& model, const DpoConfig& config, const DpoData& data,
                           uint64_t model_identity, DataParallel parallel)
    : model_(model),
      config_(config),
      data_(data),
      parallel_(parallel),
      loss_(preference_loss_options(config)),
      identity_(model_identity),
      starts_as_reference_(trains_whole_weights(model)),
      reference_model_(config.sync_ref_model ? std::make_optional<ReferenceModel>(model, config, FollowsTheModel::yes)
                                             : std::nullopt),
      training_{ReferenceLogps(reference(), data.training, config, config.ld_alpha),
                std::filesystem::path(config.output_dir) / "ref_logps.safetensors"} {
  const std::string dtype(name_of(model.dtype()));
  identity_ = XXH64(dtype.data(), dtype.size(), identity_);
  if (config.ld_alpha) identity_ = XXH64(&*config.ld_alpha, sizeof *config.ld_alpha, identity_);
  if (data.evaluation && parallel_.is_main_process())
    evaluation_.emplace(References{ReferenceLogps(reference(), *data.evaluation, config, config.ld_alpha),
                                   std::filesystem::path(config.output_dir) / "eval_ref_logps.safetensors"});
  if (parallel_.world_size() > 1) shared_ = model.trainable_parameters();
  if (repeats_its_steps(model, config, parallel_)) {
    tables_ = TrainedTables::of(model);
    graphs_ = std::make_unique<StepGraphs>(model.device(), model.trainable_parameters());
  }
  parallel_.expect_same("dataset", data.training.fingerprint(), "other rows");  // before they are shared
  if (reference_model_) return;
  if (!config.adapter.empty()) identity_ = adapter_hash(model, model.adapter().config, identity_);
  if (starts_as_reference_) {
    know_all(training_, parallel_);
    if (evaluation_) know_all(*evaluation_, {});
    return;
  }
  reference_ = "";
  if (config.adapter.empty()) return;
  policy_ = std::string(nn::default_adapter);
  reference_ = reference_adapter;
  model.load_adapter(model.adapter(*policy_), *reference_);
}

// From the file, which the main process alone looks for, or computed by all processes. Before the first step output_dir
// may not be touched yet: whether this run may write there is the trainer's to say.
void DpoObjective::know_all(References& references, const DataParallel& parallel) {
  const bool is_main = parallel.is_main_process();
  const bool loaded = is_main && references.logps.load(references.file, identity_);
  references.from_file = parallel.from_main_process(int64_t{loaded}) != 0;
  if (references.from_file) {
    references.logps.share(parallel, 0, is_main ? static_cast<size_t>(references.logps.rows()) : 0);
  } else {
    references.logps.compute_all(reference_, parallel);
  }
}

// Written once, at the first use: then the folder is this run's.
void DpoObjective::keep(References& references) {
  if (references.from_file) return;
  if (parallel_.is_main_process()) references.logps.save(references.file, identity_);
  references.from_file = true;
}

// Of each row when it first comes.
bool DpoObjective::computes_references_when_asked() const {
  return reference_model_ || (!starts_as_reference_ && !config_.precompute_ref_log_probs);
}

void DpoObjective::prepare(References& references, const DataParallel& parallel) {
  if (starts_as_reference_) return keep(references);
  if (references.from_file) return;
  know_all(references, parallel);
  keep(references);
}

PairForwardOptions DpoObjective::measuring_options() const {
  PairForwardOptions options;
  options.adapter = policy_;
  options.ld_alpha = loss_.ld_alpha;
  options.aligned_logps = loss_.use_weighting;
  return options;
}

PairForwardOptions DpoObjective::policy_options(int64_t step, double loss_scale) const {
  PairForwardOptions options = measuring_options();
  options.loss_scale = loss_scale;
  options.forward.checkpoint_layers = config_.checkpoints_layers();
  options.forward.adapter = {.dropout_seed = static_cast<uint64_t>(config_.seed),
                             .dropout_step = static_cast<uint32_t>(step),
                             .training = !config_.disable_dropout};
  return options;
}

// What a step finds out of its pairs. Work of the host in the device's queue writes it, and owns it.
struct DpoObjective::PairsOfStep {
  PreferenceLossOptions loss;
  StepPairs totals;
  std::vector<int64_t> rows;
  size_t begin, end;  // the pairs of this process
  std::shared_ptr<const ReferenceLogps::Values> known;
  // By pair.
  std::vector<PairSums> sums;
  std::vector<ReferencePair> references;
  // Of losses that compare pairs: of all of them.
  std::vector<PairGradient> gradients;
  double compared_loss = 0;

  void set(size_t at, std::span<const PairSums> pairs) {
    for (size_t i = 0; i < pairs.size(); ++i) {
      sums[at + i] = pairs[i];
      references[at + i] = (*known)[static_cast<size_t>(rows[at + i])].value();
    }
  }
  void compare() {
    gradients.resize(rows.size());
    compared_loss = preference_loss(with_reference(sums, references), totals, loss, gradients);
  }
  double learn(size_t at, std::span<const PairSums> pairs, std::span<PairGradient> of_pairs) {
    set(at, pairs);
    if (gradients.empty())
      return preference_loss(with_reference(pairs, std::span(references).subspan(at, pairs.size())), totals, loss,
                             of_pairs);
    std::ranges::copy(std::span(gradients).subspan(at, pairs.size()), of_pairs.begin());
    return compared_loss;
  }
};

std::shared_ptr<DpoObjective::PairsOfStep> DpoObjective::pairs_of(std::span<const int64_t> rows,
                                                                  std::span<const int64_t> own) const {
  auto chosen_tokens = static_cast<double>(totals_of(data_.training, own).chosen_tokens);
  parallel_.sum(std::span(&chosen_tokens, 1));
  const auto begin = static_cast<size_t>(own.data() - rows.data());
  return std::make_shared<PairsOfStep>(PairsOfStep{.loss = loss_,
                                                   .totals = {std::ssize(rows), static_cast<int64_t>(chosen_tokens)},
                                                   .rows = {rows.begin(), rows.end()},
                                                   .begin = begin,
                                                   .end = begin + own.size(),
                                                   .known = training_.logps.values(),
                                                   .sums = std::vector<PairSums>(rows.size()),
                                                   .references = std::vector<ReferencePair>(rows.size()),
                                                   .gradients = {}});
}

// Losses that sort need every pair before the first gradient: one more pass, without gradients, where a step is cut.
PairPass DpoObjective::comparing(const std::shared_ptr<PairsOfStep>& step, std::span<const int64_t> own,
                                 PairForwardOptions options) const {
  options.measured = Measured::logps;
  options.first_pair = static_cast<int64_t>(step->begin);
  return pair_pass(model_, data_.training, own, config_, options,
                   [step, alone = !parallel_.several(), count = own.size()](
                       size_t first, std::span<const PairSums> pairs, std::span<PairGradient>) {
                     step->set(step->begin + first, pairs);
                     if (alone && first + pairs.size() == count) step->compare();
                     return 0.0;
                   });
}

// Of rows of the step that lie next to each other.
PairPass DpoObjective::learning(const std::shared_ptr<PairsOfStep>& step, std::span<const int64_t> rows,
                                const PairForwardOptions& options) const {
  return pair_pass(model_, data_.training, rows, config_, options,
                   [step, begin = static_cast<size_t>(options.first_pair)](
                       size_t first, std::span<const PairSums> pairs, std::span<PairGradient> of_pairs) {
                     return step->learn(begin + first, pairs, of_pairs);
                   });
}

QueuedStep DpoObjective::accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) {
  const TrainingSet& set = data_.training;
  if (set.stream() != nullptr && !rows.empty()) set.sequences_of_row(rows.back());  // read by all processes alike
  const auto [first_rank, last_rank] = parallel_.ranks();
  const std::span<const int64_t> own = rows_of_ranks(rows, {first_rank, last_rank}, parallel_.world_size());
  Passes passes;
  if (computes_references_when_asked()) {
    passes[reference_pass] = training_.logps.pass(own, reference_);
  } else {
    prepare(training_, parallel_);
  }
  const std::shared_ptr<PairsOfStep> pairs = pairs_of(rows, own);
  PairForwardOptions options = policy_options(step, loss_scale);
  const bool compares = loss_.compares_pairs() && rows.size() > 1;
  if (compares) passes[comparing_pass] = comparing(pairs, own, options);
  QueuedStep queued;
  if (graphs_ != nullptr) {
    passes[learning_pass] = learning(pairs, rows, options);
    queue_repeatable(passes, step, loss_scale);
    queued.losses = losses_;
  } else {
    for (const std::optional<PairPass>& pass : passes)
      if (pass) queue_pairs(*pass, HostPart<PairWork>::of(pass->work));
    if (compares) compare_over_processes(*pairs);
    RankGradients gradients(parallel_, shared_);
    for (int64_t rank = first_rank; rank < last_rank; ++rank) {
      const std::span<const int64_t> of_rank = rows_of_rank(rows, rank, parallel_.world_size());
      options.first_pair = of_rank.data() - rows.data();
      const PairPass pass = learning(pairs, of_rank, options);
      for (Tensor& loss : learn_pairs(pass, HostPart<PairWork>::of(pass.work)))
        queued.losses.push_back(std::move(loss));
      gradients.end_rank();
    }
    gradients.end_step();
  }
  if (!rows.empty()) rows_learnt_ = rows.back() + 1;
  queued.outcome = [this, pairs] { return outcome_of(*pairs); };
  return queued;
}

void DpoObjective::compare_over_processes(PairsOfStep& step) const {
  if (!parallel_.several()) return;
  kernels::synchronize(model_.device());
  share_pairs(parallel_, step.sums, step.references, step.begin, step.end);
  step.compare();
}

// Fills losses_.
void DpoObjective::queue_repeatable(const Passes& passes, int64_t step, double loss_scale) {
  StepNumbers numbers(loss_scale, static_cast<uint32_t>(step), tables_);
  for (const std::optional<PairPass>& pass : passes) {
    numbers.separate();
    if (!pass) continue;
    for (const PairBatch& batch : pass->batches) numbers.add(batch.batch, batch.prefixes.lengths);
  }
  const auto queue = [&](StoredNumbers* stored) {
    const auto work = [&](PassOfStep pass) {
      return stored != nullptr ? work_in_graph_[pass] : HostPart<PairWork>::of(passes[pass]->work);
    };
    for (const PassOfStep pass : {reference_pass, comparing_pass})
      if (passes[pass]) queue_pairs(*passes[pass], work(pass), stored);
    losses_ = learn_pairs(*passes[learning_pass], work(learning_pass), stored);
  };
  if (!numbers.within(model_.config().vocab_size)) return queue(nullptr);
  graphs_->run(numbers, queue, [&] {
    for (size_t i = 0; i < pass_count; ++i)
      if (passes[i]) work_in_graph_[i].queue_put(model_.device(), passes[i]->work);
  });
}

// Once more over all of them: the sum's order depends neither on the cuts nor on the ranks.
StepOutcome DpoObjective::outcome_of(PairsOfStep& step) const {
  kernels::synchronize(model_.device());
  share_pairs(parallel_, step.sums, step.references, step.begin, step.end);
  const std::vector<PreferencePair> pairs = with_reference(step.sums, step.references);
  std::vector<PairGradient> unused(pairs.size());
  StepOutcome outcome;
  outcome.loss = preference_loss(pairs, step.totals, loss_, unused);
  for (const PairSums& pair : step.sums) outcome.tokens += pair.tokens;
  outcome.metrics = metrics_of(step.sums, pairs, config_.beta);
  return outcome;
}

Metrics DpoObjective::evaluate() {
  if (!evaluation_) return {};
  const std::vector<int64_t> rows = all_rows(*data_.evaluation);
  if (graphs_ != nullptr) graphs_->forget();
  if (computes_references_when_asked()) {
    evaluation_->logps.compute(rows, reference_);
  } else {
    prepare(*evaluation_, {});  // the other processes do not evaluate
  }
  const std::vector<PairSums> sums = measure_pairs(model_, *data_.evaluation, rows, config_, measuring_options());
  const std::vector<PreferencePair> pairs = with_reference(sums, references_of(rows, evaluation_->logps));
  std::vector<PairGradient> unused(pairs.size());
  Metrics metrics = {{"loss", preference_loss(pairs, totals_of(pairs), loss_, unused)}};
  for (auto& metric : metrics_of(sums, pairs, config_.beta)) metrics.push_back(std::move(metric));
  for (auto& [name, value] : metrics) name = "eval_" + name;
  return metrics;
}

void DpoObjective::after_update(int64_t steps_done) {
  if (!reference_model_ || steps_done % config_.ref_model_sync_steps != 0) return;
  reference_model_->mix(model_, config_.ref_model_mixup_alpha);
  forget_references();
}

void DpoObjective::forget_references() {
  training_.logps.forget();
  if (evaluation_) evaluation_->logps.forget();
}

std::string_view DpoObjective::state_name() const {
  return reference_model_ ? "dpo" : data_.training.stream() != nullptr ? "row_stream" : "";
}

void DpoObjective::save_state(const std::filesystem::path& folder) const {
  if (reference_model_) reference_model_->save(folder);
  if (data_.training.stream() != nullptr) data_.training.stream()->save(folder, rows_learnt_);
}

void DpoObjective::load_state(const std::filesystem::path& folder) {
  if (reference_model_) {
    reference_model_->load(folder);
    forget_references();
  }
  if (data_.training.stream() != nullptr) data_.training.stream()->load(folder);
}

void DpoObjective::share_state() {
  if (reference_model_) {
    reference_model_->share(parallel_);
    forget_references();
  }
  if (data_.training.stream() != nullptr) data_.training.stream()->share_place();
}

}  // namespace lathe::train
