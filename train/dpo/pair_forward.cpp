#include "train/dpo/pair_forward.h"

#include <algorithm>

#include "autograd/ops/token_logprobs.h"
#include "autograd/recording.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/profiler_range.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/attention_context.h"
#include "train/dpo/dpo_data.h"
#include "train/dpo/pair_batch.h"

namespace lathe::train {
namespace {

// What a log-probability's own gradient is multiplied by in float16: softmax's small numbers are kept, and its largest
// are far from the end.
constexpr double largest_unit = 1024;

DType wide(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// The sum over the vocabulary of the output projection's rows, [1, H]: a logit is a dot product, so that the mean of a
// token's logits is one with this row, over the vocabulary's size.
Tensor summed_rows(const nn::Transformer& model) {
  const autograd::LinearWeight& weight = model.output_weight();
  const Tensor ones = Tensor::empty({1, weight.rows()}, model.dtype(), model.device());
  kernels::fill(ones, 1.0);
  const Tensor sum = Tensor::empty({1, weight.columns()}, model.dtype(), model.device());
  kernels::linear_input_gradient({.grad_x = sum, .grad_out = ones, .weight = weight.value()});
  return sum;
}

std::vector<double> doubles(const Tensor& tensor) {
  const Tensor values = kernels::cast(kernels::moved(tensor, {}), DType::f64);
  const auto all = values.span<double>();
  return {all.begin(), all.end()};
}

// One forward over rows of a set.
class PairForward {
 public:
  PairForward(const nn::Transformer& model, const TrainingSet& pairs, std::span<const int64_t> rows,
              int32_t first_sample, const PairForwardOptions& options, const Tensor& vocabulary_sum)
      : model_(model),
        ld_alpha_(options.ld_alpha),
        loss_scale_(options.loss_scale),
        unit_(std::min(options.loss_scale, largest_unit)),
        pairs_(make_pair_batch(pairs, rows, first_sample, prompts_of(options))),
        attention_(model.config(), pairs_.prefixes) {
    const kernels::ProfilerRange range("forward");
    if (options.adapter)
      pairs_.batch.tokens.adapters.assign(static_cast<size_t>(pairs_.batch.tokens.layout.sequences()),
                                          *options.adapter);
    hidden_ = model.forward(pairs_.batch.tokens, attention_, options.forward);
    project(options);
    sum_up(options, vocabulary_sum);
  }

  const std::vector<PairSums>& sums() const { return sums_; }

  // Of each pair's logps.
  void backward(std::span<const PairGradient> gradients) {
    const kernels::ProfilerRange range("backward");
    const auto bounds = pairs_.batch.tokens.layout.cu_seqlens.span<int32_t>();
    const Tensor cotangent =
        unit_gradient_.defined() ? unit_gradient_ : Tensor::zeros({hidden_.dim(0)}, logprobs_.dtype());
    const auto set = [&](int64_t begin, int64_t end, double gradient) {
      if (begin == end) return;
      const Tensor part = cotangent.slice(0, begin, end);
      unit_gradient_.defined() ? kernels::scale(part, part, gradient * (loss_scale_ / unit_))
                               : kernels::fill(part, gradient * loss_scale_);
    };
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      const PairGradient& pair = gradients[s / 2];
      const double gradient = s % 2 == 0 ? pair.chosen : pair.rejected;
      if (!ld_alpha_) {
        set(bounds[s], bounds[s + 1], gradient);
        continue;
      }
      const double unweighted = s % 2 == 0 ? pair.chosen_unweighted : 0;
      set(bounds[s], tail_begins_[s], gradient + unweighted);
      set(tail_begins_[s], bounds[s + 1], *ld_alpha_ * gradient + unweighted);
    }
    unit_gradient_.defined() ? autograd::backward(hidden_, cotangent)
                             : autograd::backward(logprobs_, kernels::moved(cotangent, logprobs_.value().device()));
  }

 private:
  // Dropout drops other elements of each sequence.
  static PromptRows prompts_of(const PairForwardOptions& options) {
    return options.forward.adapter.training ? PromptRows::twice : PromptRows::once;
  }

  // A completion's tokens all have the gradient of its sum. So where the projection is frozen, the gradient of hidden
  // is made beside the log-probabilities, as for a sum of unit_ to each, while the logits are at hand; the loss then
  // scales its rows. A projection that trains computes the logits again in the backward.
  void project(const PairForwardOptions& options) {
    const autograd::LinearWeight& weight = model_.output_weight();
    const bool everything = options.measured == Measured::everything;
    if (weight.dense().requires_grad() && autograd::grad_enabled()) {
      logprobs_ =
          autograd::token_logprobs(hidden_, weight, pairs_.batch.labels, pairs_.batch.tokens.layout, model_.softcap(),
                                   1.0f, everything ? &entropy_ : nullptr, everything ? &correct_ : nullptr,
                                   options.aligned_logps ? &log_sum_sq_probs_ : nullptr);
      return;
    }
    const Tensor& hidden = hidden_.value();
    const Tensor loss = Tensor::empty({hidden.dim(0)}, wide(hidden.dtype()), hidden.device());
    kernels::CrossEntropyOutputs outputs{.loss = loss};
    if (everything) {
      outputs.entropy = entropy_ = Tensor::empty(loss.shape(), loss.dtype(), loss.device());
      outputs.correct = correct_ = Tensor::empty(loss.shape(), DType::u8, loss.device());
    }
    if (options.aligned_logps)
      outputs.log_sum_sq_probs = log_sum_sq_probs_ = Tensor::empty(loss.shape(), loss.dtype(), loss.device());
    if (hidden_.requires_grad())
      outputs.grad_hidden = unit_gradient_ = Tensor::empty(hidden.shape(), hidden.dtype(), hidden.device());
    kernels::linear_cross_entropy(outputs, {.hidden = hidden,
                                            .weight = weight.value(),
                                            .labels = pairs_.batch.labels,
                                            .cu_seqlens = pairs_.batch.tokens.layout.cu_seqlens,
                                            .scale = -unit_,  // log p = −loss
                                            .softcap = model_.softcap()});
    kernels::scale(loss, loss, -1.0);
    logprobs_ = loss;
  }

  void sum_up(const PairForwardOptions& options, const Tensor& vocabulary_sum) {
    const bool everything = options.measured == Measured::everything;
    const std::vector<double> logprobs = doubles(logprobs_.value());
    std::vector<double> entropy, logits, log_sum_sq_probs;
    if (options.aligned_logps) log_sum_sq_probs = doubles(log_sum_sq_probs_);
    Tensor correct;
    if (everything) {
      entropy = doubles(entropy_);
      correct = kernels::moved(correct_, {});
      const Tensor sums = Tensor::empty({hidden_.dim(0), 1}, logprobs_.dtype(), hidden_.value().device());
      kernels::linear_forward(sums, hidden_.value(), kernels::Weight(vocabulary_sum));
      logits = doubles(sums);
    }
    const auto labels = pairs_.batch.labels.span<int32_t>();
    const auto bounds = pairs_.batch.tokens.layout.cu_seqlens.span<int32_t>();
    const auto vocabulary = static_cast<double>(model_.output_weight().rows());
    sums_.resize(bounds.size() / 2);
    if (ld_alpha_) find_tails();
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      PairSums& pair = sums_[s / 2];
      CompletionSums& completion = s % 2 == 0 ? pair.chosen : pair.rejected;
      pair.tokens += pairs_.prefixes.lengths[s] + bounds[s + 1] - bounds[s];
      double tail = 0;
      for (auto t = static_cast<size_t>(bounds[s]); t < static_cast<size_t>(bounds[s + 1]); ++t) {
        if (labels[t] == kernels::ignored_label) continue;
        ++completion.tokens;
        (ld_alpha_ && static_cast<int64_t>(t) >= tail_begins_[s] ? tail : completion.logps) += logprobs[t];
        completion.unweighted_logps += logprobs[t];
        if (options.aligned_logps) completion.aligned_logps += logprobs[t] - log_sum_sq_probs[t];
        if (!everything) continue;
        completion.entropy += entropy[t];
        completion.logits += logits[t] / vocabulary;
        completion.correct += correct.span<uint8_t>()[t];
      }
      if (ld_alpha_) completion.logps += *ld_alpha_ * tail;
    }
  }

  // Where in each sequence the tokens begin that its completion has beyond the length of the shorter of the two.
  void find_tails() {
    const auto labels = pairs_.batch.labels.span<int32_t>();
    const auto bounds = pairs_.batch.tokens.layout.cu_seqlens.span<int32_t>();
    const auto labelled = [&](size_t s) {
      return std::count_if(labels.begin() + bounds[s], labels.begin() + bounds[s + 1],
                           [](int32_t label) { return label != kernels::ignored_label; });
    };
    tail_begins_.resize(bounds.size() - 1);
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      int64_t left = std::min(labelled(s), labelled(s ^ 1));
      int64_t at = bounds[s];
      for (; left > 0; ++at) left -= labels[static_cast<size_t>(at)] != kernels::ignored_label;
      tail_begins_[s] = at;
    }
  }

  const nn::Transformer& model_;
  std::optional<double> ld_alpha_;
  double loss_scale_, unit_;
  PairBatch pairs_;
  nn::SharedPrefixAttention attention_;
  autograd::Variable hidden_, logprobs_;
  Tensor entropy_, correct_, log_sum_sq_probs_;
  std::vector<int64_t> tail_begins_;
  Tensor unit_gradient_;  // of hidden, for a gradient of unit_ of every log-probability
  std::vector<PairSums> sums_;
};

template <class PerForward>
void for_each_forward(const nn::Transformer& model, const TrainingSet& pairs, std::span<const int64_t> rows,
                      const TrainingSettings& settings, const PairForwardOptions& options, PerForward per_forward) {
  const Tensor vocabulary_sum = options.measured == Measured::everything ? summed_rows(model) : Tensor();
  size_t first = 0;
  for (const auto& cut :
       cut_pairs(pairs, rows, settings.per_device_train_batch_size, settings.max_tokens_per_forward)) {
    PairForward forward(model, pairs, cut, static_cast<int32_t>(2 * (options.first_pair + static_cast<int64_t>(first))),
                        options, vocabulary_sum);
    per_forward(first, forward);
    first += cut.size();
  }
}

}  // namespace

std::vector<PairSums> measure_pairs(const nn::Transformer& model, const TrainingSet& pairs,
                                    std::span<const int64_t> rows, const TrainingSettings& settings,
                                    const PairForwardOptions& options) {
  const autograd::NoGradScope no_grad;
  std::vector<PairSums> result;
  for_each_forward(model, pairs, rows, settings, options, [&](size_t, const PairForward& forward) {
    result.insert(result.end(), forward.sums().begin(), forward.sums().end());
  });
  return result;
}

void learn_pairs(const nn::Transformer& model, const TrainingSet& pairs, std::span<const int64_t> rows,
                 const TrainingSettings& settings, const PairForwardOptions& options, const LearnPairs& learn) {
  for_each_forward(model, pairs, rows, settings, options, [&](size_t first, PairForward& forward) {
    std::vector<PairGradient> gradients(forward.sums().size());
    learn(first, forward.sums(), gradients);
    forward.backward(gradients);
  });
}

}  // namespace lathe::train
