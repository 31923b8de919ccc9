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

int64_t count_labels(const TrainingSet& set, std::span<const std::vector<int64_t>> forwards) {
  int64_t count = 0;
  std::vector<int32_t> ids, labels;
  for (const auto& sequences : forwards)
    for (const int64_t sequence : sequences) {
      ids.clear();
      labels.clear();
      set.append_sequence(sequence, ids, labels);
      count += std::ssize(labels) - 1 - std::count(labels.begin() + 1, labels.end(), kernels::ignored_label);
    }
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
  if (parallel_.world_size() > 1) shared_ = model.trainable_parameters();
}

QueuedStep SftObjective::accumulate(std::span<const int64_t> rows, int64_t step, double loss_scale) {
  struct RankRows {
    std::vector<std::vector<int64_t>> forwards;
    int32_t first_sample;  // of the step
  };
  if (training_.stream() && !rows.empty()) training_.sequences_of_row(rows.back());  // read by all processes alike
  std::vector<RankRows> of_ranks;
  int32_t samples = 0;
  double labels = 0;  // exact
  const auto [first_rank, last_rank] = parallel_.ranks();
  for (int64_t rank = 0; rank < last_rank; ++rank) {
    const std::span<const int64_t> own = rows_of_rank(rows, rank, parallel_.world_size());
    const int32_t first_sample = samples;
    for (const int64_t row : own) {
      const auto [first, last] = training_.sequences_of_row(row);
      samples += static_cast<int32_t>(last - first);
    }
    if (rank < first_rank) continue;
    of_ranks.push_back({cut_into_forwards(training_, own, rows_per_forward_, max_tokens_per_forward_), first_sample});
    labels += static_cast<double>(count_labels(training_, of_ranks.back().forwards));
  }
  // Counted before anything runs: every forward's gradients are scaled by the whole step's number.
  parallel_.sum(std::span(&labels, 1));
  if (labels == 0) throw NumericError("step " + std::to_string(step + 1) + ": its rows have no label to learn");

  std::vector<std::vector<Measured>> measured;
  QueuedStep queued;
  RankGradients gradients(parallel_, shared_);
  for (const RankRows& rank : of_ranks) {
    measured.push_back(accumulate_rank(rank.forwards, loss_scale / labels, step, rank.first_sample, queued));
    gradients.end_rank();
  }
  gradients.end_step();
  if (!rows.empty()) rows_learnt_ = rows.back() + 1;
  queued.outcome = [this, measured = std::move(measured)] { return outcome_of(measured); };
  return queued;
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

std::vector<SftObjective::Measured> SftObjective::accumulate_rank(std::span<const std::vector<int64_t>> forwards,
                                                                  double scale, int64_t step, int32_t first_sample,
                                                                  QueuedStep& queued) const {
  nn::ForwardOptions options;
  options.checkpoint_layers = checkpoint_layers_;
  options.adapter = {.dropout_seed = seed_, .dropout_step = static_cast<uint32_t>(step), .training = true};
  std::vector<Measured> measured;
  for (const auto& sequences : forwards) {
    const MicroBatch batch = make_micro_batch(training_, sequences, first_sample);
    first_sample += static_cast<int32_t>(sequences.size());
    nn::PackedAttention attention(model_.config(), batch.tokens.layout);
    std::optional<kernels::ProfilerRange> range("forward");
    const autograd::Variable hidden = model_.forward(batch.tokens, attention, options);
    const auto result =
        autograd::linear_cross_entropy(hidden, model_.output_weight(), batch.labels, batch.tokens.layout, scale,
                                       model_.softcap(), autograd::LossValue::left_out);
    range.emplace("backward");
    autograd::backward(result.loss);
    measured.emplace_back(result, batch.labels);
    queued.losses.push_back(result.token_loss);
  }
  return measured;
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
