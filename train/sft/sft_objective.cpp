#include "train/sft/sft_objective.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/recording.h"
#include "core/error.h"
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/profiler_range.h"
#include "kernels/cuda/runtime.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/attention_context.h"
#include "train/row_order.h"
#include "train/row_stream.h"

namespace lathe::train {
namespace {

int64_t count_labels(std::span<const MicroBatch> forwards) {
  int64_t count = 0;
  for (const MicroBatch& forward : forwards) count += forward.labelled();
  return count;
}

}  // namespace

// Of a forward: copies for the host, which are queued, and its labels.
struct SftObjective::Measured {
  Tensor token_loss, entropy, correct, labels;

  Measured(const autograd::CrossEntropyResult& result, const Tensor& of_labels)
      : token_loss(kernels::queued_to_host(result.token_loss)),
        entropy(kernels::queued_to_host(result.entropy)),
        correct(kernels::queued_to_host(result.correct)),
        labels(of_labels) {}
};

struct SftObjective::Forward {
  Measured measured;
  Tensor token_loss;  // on the device
};

// How gradients of a step are scaled and what keys its random numbers.
struct SftObjective::Scale {
  double of_gradients;
  uint32_t step;
};

// Token by token in double, in the order of the rows: the sums do not depend on how rows were cut into forwards.
struct SftObjective::TokenSums {
  double loss = 0, entropy = 0;
  int64_t correct = 0, labels = 0, tokens = 0;

  void add(const Measured& measured) {
    const auto labels_of = measured.labels.span<int32_t>();
    const auto value = [](const Tensor& tensor, size_t i) {
      return tensor.dtype() == DType::f64 ? tensor.data<double>()[i] : static_cast<double>(tensor.data<float>()[i]);
    };
    const auto right = measured.correct.span<uint8_t>();
    tokens += static_cast<int64_t>(labels_of.size());
    for (size_t i = 0; i < labels_of.size(); ++i) {
      if (labels_of[i] == kernels::ignored_label) continue;
      loss += value(measured.token_loss, i);
      entropy += value(measured.entropy, i);
      correct += right[i];
      ++labels;
    }
  }
  void add(const TokenSums& more) {
    loss += more.loss;
    entropy += more.entropy;
    correct += more.correct;
    labels += more.labels;
    tokens += more.tokens;
  }
  // Over the processes, too. Counts are exact in double.
  void sum_over(const DataParallel& parallel) {
    std::array<double, 5> values = {loss, entropy, static_cast<double>(correct), static_cast<double>(labels),
                                    static_cast<double>(tokens)};
    parallel.sum(values);
    loss = values[0];
    entropy = values[1];
    correct = static_cast<int64_t>(values[2]);
    labels = static_cast<int64_t>(values[3]);
    tokens = static_cast<int64_t>(values[4]);
  }
  double mean(double sum) const { return labels > 0 ? sum / static_cast<double>(labels) : 0.0; }
};

SftObjective::SftObjective(nn::Transformer& model, const TrainingSet& training, const TrainingSet* evaluation,
                           const TrainingSettings& settings, DataParallel parallel)
    : model_(model),
      parallel_(parallel),
      training_(training),
      evaluation_(evaluation),
      rows_per_forward_(settings.per_device_train_batch_size),
      max_tokens_per_forward_(settings.max_tokens_per_forward),
      checkpoint_layers_(settings.checkpoints_layers()),
      seed_(static_cast<uint64_t>(settings.seed)) {
  if (repeats_its_steps(model, settings, parallel_)) {
    tables_ = TrainedTables::of(model);
    graphs_ = std::make_unique<StepGraphs>(model.device(), model.trainable_parameters());
  }
  if (parallel_.world_size() > 1) shared_ = model.trainable_parameters();
}

SftObjective::~SftObjective() = default;

QueuedStep SftObjective::accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) {
  const std::vector<std::vector<MicroBatch>> of_ranks = read(rows);
  double labels = 0;  // exact
  for (const std::vector<MicroBatch>& forwards : of_ranks) labels += static_cast<double>(count_labels(forwards));
  // Counted before anything runs: every forward's gradients are scaled by the whole step's number.
  parallel_.sum(std::span(&labels, 1));
  if (labels == 0) throw NumericError("step " + std::to_string(step + 1) + ": its rows have no label to learn");

  const Scale scale{loss_scale / labels, static_cast<uint32_t>(step)};
  std::vector<std::vector<Measured>> measured;
  QueuedStep queued;
  RankGradients gradients(parallel_, shared_);
  for (const std::vector<MicroBatch>& forwards : of_ranks) {
    graphs_ != nullptr ? accumulate_repeatable(forwards, scale) : accumulate_rank(forwards, scale, nullptr);
    measured.emplace_back();
    for (size_t i = 0; i < forwards.size(); ++i) {
      measured.back().push_back(queued_[i].measured);
      measured.back().back().labels = forwards[i].labels;  // a replayed forward has those of the captured one
      queued.losses.push_back(queued_[i].token_loss);
    }
    gradients.end_rank();
  }
  gradients.end_step();
  if (!rows.empty()) rows_learnt_ = rows.back() + 1;
  queued.outcome = [this, measured = std::move(measured)] { return outcome_of(measured); };
  return queued;
}

// The forwards of each of this process's ranks. Samples are numbered through all ranks.
std::vector<std::vector<MicroBatch>> SftObjective::read(std::span<const int64_t> rows) const {
  if (training_.stream() && !rows.empty()) training_.sequences_of_row(rows.back());  // read by all processes alike
  std::vector<std::vector<MicroBatch>> of_ranks;
  int32_t samples = 0;
  const auto [first_rank, last_rank] = parallel_.ranks();
  for (int64_t rank = 0; rank < last_rank; ++rank) {
    const std::span<const int64_t> own = rows_of_rank(rows, rank, parallel_.world_size());
    if (rank < first_rank) {
      for (const int64_t row : own) {
        const auto [first, last] = training_.sequences_of_row(row);
        samples += static_cast<int32_t>(last - first);
      }
      continue;
    }
    of_ranks.emplace_back();
    for (const auto& sequences : cut_into_forwards(training_, own, rows_per_forward_, max_tokens_per_forward_)) {
      of_ranks.back().push_back(make_micro_batch(training_, sequences, samples));
      samples += static_cast<int32_t>(sequences.size());
    }
  }
  return of_ranks;
}

// The optimiser is not a part of the graph: a few launches, whose numbers are of each step anew.
void SftObjective::accumulate_repeatable(std::span<const MicroBatch> forwards, const Scale& scale) {
  StepNumbers numbers(scale.of_gradients, scale.step, tables_);
  for (const MicroBatch& batch : forwards) numbers.add(batch);
  if (!numbers.within(model_.config().vocab_size)) return accumulate_rank(forwards, scale, nullptr);
  graphs_->run(numbers, [&](StoredNumbers* stored) { accumulate_rank(forwards, scale, stored); });
}

StepOutcome SftObjective::outcome_of(std::span<const std::vector<Measured>> ranks) const {
  kernels::synchronize(model_.device());
  TokenSums sums;
  for (const std::vector<Measured>& rank : ranks) {
    TokenSums own;
    for (const Measured& forward : rank) own.add(forward);
    sums.add(own);
  }
  sums.sum_over(parallel_);
  return {
      sums.mean(sums.loss),
      sums.tokens,
      {{"entropy", sums.mean(sums.entropy)}, {"mean_token_accuracy", sums.mean(static_cast<double>(sums.correct))}}};
}

// Fills queued_.
void SftObjective::accumulate_rank(std::span<const MicroBatch> forwards, const Scale& scale, StoredNumbers* stored) {
  queued_.clear();
  for (const MicroBatch& batch : forwards) accumulate_forward(batch, scale, stored);
}

void SftObjective::accumulate_forward(const MicroBatch& batch, const Scale& scale, StoredNumbers* stored) {
  const ForwardInputs inputs = inputs_of(batch, stored);
  nn::ForwardOptions options;
  options.checkpoint_layers = checkpoint_layers_;
  options.adapter = {
      .dropout_seed = seed_, .dropout_step = scale.step, .training = true, .stored_dropout_step = inputs.dropout_step};
  const autograd::SequenceLayout& layout = inputs.tokens.layout;
  nn::PackedAttention attention(model_.config(), layout);
  std::optional<kernels::ProfilerRange> range("forward");
  const autograd::Variable hidden = model_.forward(inputs.tokens, attention, options);
  const auto result =
      autograd::linear_cross_entropy(hidden, model_.output_weight(), inputs.labels, layout, scale.of_gradients,
                                     model_.softcap(), autograd::LossValue::left_out, inputs.labelled);
  range.emplace("backward");
  autograd::backward(result.loss);
  queued_.push_back({Measured(result, batch.labels), result.token_loss});
}

void SftObjective::save_state(const std::filesystem::path& folder) const {
  if (training_.stream()) training_.stream()->save(folder, rows_learnt_);
}

void SftObjective::load_state(const std::filesystem::path& folder) {
  if (training_.stream()) training_.stream()->load(folder);
}

void SftObjective::share_state() {
  if (training_.stream()) training_.stream()->share_place();
}

Metrics SftObjective::evaluate() {
  if (evaluation_ == nullptr) return {};
  if (graphs_ != nullptr) graphs_->forget();
  const autograd::NoGradScope no_grad;
  std::vector<int64_t> rows(static_cast<size_t>(evaluation_->rows()));
  std::iota(rows.begin(), rows.end(), 0);
  constexpr size_t read_at_once = 64;  // forwards: their copies are pinned memory
  std::vector<Measured> measured;
  TokenSums sums;
  const auto read = [&] {
    kernels::synchronize(model_.device());
    for (const Measured& forward : measured) sums.add(forward);
    measured.clear();
  };
  for (const auto& sequences : cut_into_forwards(*evaluation_, rows, rows_per_forward_, max_tokens_per_forward_)) {
    const MicroBatch batch = make_micro_batch(*evaluation_, sequences, 0);
    nn::PackedAttention attention(model_.config(), batch.tokens.layout);
    const autograd::Variable hidden = model_.forward(batch.tokens, attention);
    const auto result =
        autograd::linear_cross_entropy(hidden, model_.output_weight(), batch.labels, batch.tokens.layout, 1.0,
                                       model_.softcap(), autograd::LossValue::left_out);
    measured.emplace_back(result, batch.labels);
    if (measured.size() == read_at_once) read();
  }
  read();
  return {{"eval_loss", sums.mean(sums.loss)},
          {"eval_entropy", sums.mean(sums.entropy)},
          {"eval_mean_token_accuracy", sums.mean(static_cast<double>(sums.correct))}};
}

}  // namespace lathe::train
