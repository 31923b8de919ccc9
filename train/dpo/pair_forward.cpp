#include "train/dpo/pair_forward.h"

#include <algorithm>
#include <memory>

#include "autograd/ops/token_logprobs.h"
#include "autograd/recording.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/profiler_range.h"
#include "kernels/cuda/runtime.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/attention_context.h"
#include "train/dpo/dpo_data.h"
#include "train/dpo/pair_batch.h"
#include "train/objective.h"

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

double value_of(const Tensor& tensor, size_t i) {
  return tensor.dtype() == DType::f64 ? tensor.data<double>()[i] : static_cast<double>(tensor.data<float>()[i]);
}

// What the host makes sums of, and gradients from, once the device has done a forward: of every step of its shape.
// Everything is the host's.
struct PairNumbers {
  // Copies that are queued; undefined what was not asked for.
  Tensor logprobs, entropy, correct, logits, log_sum_sq_probs;
  Tensor cu_seqlens;
  std::vector<int32_t> prefix_lengths;
  std::optional<double> ld_alpha;
  double vocabulary = 0;

  std::vector<PairSums> sums(const PairWork::Forward& of) const {
    const auto label = of.labels.span<int32_t>(), bounds = cu_seqlens.span<int32_t>();
    std::vector<PairSums> all(bounds.size() / 2);
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      PairSums& pair = all[s / 2];
      CompletionSums& completion = s % 2 == 0 ? pair.chosen : pair.rejected;
      pair.tokens += prefix_lengths[s] + bounds[s + 1] - bounds[s];
      double tail = 0;
      for (auto t = static_cast<size_t>(bounds[s]); t < static_cast<size_t>(bounds[s + 1]); ++t) {
        if (label[t] == kernels::ignored_label) continue;
        const double logprob = value_of(logprobs, t);
        ++completion.tokens;
        (ld_alpha && static_cast<int64_t>(t) >= of.tail_begins[s] ? tail : completion.logps) += logprob;
        completion.unweighted_logps += logprob;
        if (log_sum_sq_probs.defined()) completion.aligned_logps += logprob - value_of(log_sum_sq_probs, t);
        if (!entropy.defined()) continue;
        completion.entropy += value_of(entropy, t);
        completion.logits += value_of(logits, t) / vocabulary;
        completion.correct += correct.span<uint8_t>()[t];
      }
      if (ld_alpha) completion.logps += *ld_alpha * tail;
    }
    return all;
  }

  // scale · ∂loss/∂log p of each token.
  void spread(std::span<const PairGradient> gradients, double scale, const PairWork::Forward& of,
              const Tensor& of_tokens) const {
    const auto set = [&](int64_t begin, int64_t end, double gradient) {
      for (int64_t t = begin; t < end; ++t) {
        if (of_tokens.dtype() == DType::f64) {
          of_tokens.data<double>()[t] = gradient * scale;
        } else {
          of_tokens.data<float>()[t] = static_cast<float>(gradient * scale);
        }
      }
    };
    const auto bounds = cu_seqlens.span<int32_t>();
    for (size_t s = 0; s + 1 < bounds.size(); ++s) {
      const PairGradient& pair = gradients[s / 2];
      const double gradient = s % 2 == 0 ? pair.chosen : pair.rejected;
      if (!ld_alpha) {
        set(bounds[s], bounds[s + 1], gradient);
        continue;
      }
      const double unweighted = s % 2 == 0 ? pair.chosen_unweighted : 0;
      set(bounds[s], of.tail_begins[s], gradient + unweighted);
      set(of.tail_begins[s], bounds[s + 1], *ld_alpha * gradient + unweighted);
    }
  }
};

// Where in each sequence the tokens begin that its completion has beyond the length of the shorter of the two.
std::vector<int64_t> tails_of(const PairBatch& pairs) {
  const auto labels = pairs.batch.labels.span<int32_t>();
  const auto bounds = pairs.batch.tokens.layout.cu_seqlens.span<int32_t>();
  const auto labelled = [&](size_t s) {
    return std::count_if(labels.begin() + bounds[s], labels.begin() + bounds[s + 1],
                         [](int32_t label) { return label != kernels::ignored_label; });
  };
  std::vector<int64_t> begins(bounds.size() - 1);
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    int64_t left = std::min(labelled(s), labelled(s ^ 1));
    int64_t at = bounds[s];
    for (; left > 0; ++at) left -= labels[static_cast<size_t>(at)] != kernels::ignored_label;
    begins[s] = at;
  }
  return begins;
}

// Dropout drops other elements of each sequence.
PromptRows prompts_of(const PairForwardOptions& options) {
  return options.forward.adapter.training ? PromptRows::twice : PromptRows::once;
}

// One forward of a pass.
class PairForward {
 public:
  PairForward(const PairPass& pass, const PairBatch& batch, ForwardInputs inputs, const Tensor& vocabulary_sum)
      : model_(*pass.model),
        loss_scale_(pass.options.loss_scale),
        unit_(std::min(pass.options.loss_scale, largest_unit)),
        batch_(batch),
        inputs_(std::move(inputs)),
        attention_(model_.config(), batch.prefixes) {
    const kernels::ProfilerRange range("forward");
    const PairForwardOptions& options = pass.options;
    if (options.adapter)
      inputs_.tokens.adapters.assign(static_cast<size_t>(inputs_.tokens.layout.sequences()), *options.adapter);
    nn::ForwardOptions forward = options.forward;
    forward.adapter.stored_dropout_step = inputs_.dropout_step;
    hidden_ = model_.forward(inputs_.tokens, attention_, forward);
    project(options);
    take_numbers(options, vocabulary_sum);
  }

  const std::shared_ptr<const PairNumbers>& numbers() const { return numbers_; }

  // Back from what the host will make of the numbers; gives its share of the loss.
  Tensor backward(size_t forward, const HostPart<PairWork>& work) {
    const kernels::ProfilerRange range("backward");
    const Device device = hidden_.value().device();
    const Tensor of_tokens = kernels::host_tensor({hidden_.dim(0)}, logprobs_.dtype(), device);
    const Tensor share = kernels::host_tensor({1}, DType::f32, device);
    const double scale = unit_gradient_.defined() ? loss_scale_ / unit_ : loss_scale_;
    kernels::queue_host_work(device,
                             [numbers = numbers_, work, forward, first = batch_.first, scale, of_tokens, share] {
                               const PairWork::Forward& of = work->forwards[forward];
                               const std::vector<PairSums> sums = numbers->sums(of);
                               std::vector<PairGradient> gradients(sums.size());
                               share.data<float>()[0] = finite_mark(work->made(first, sums, gradients));
                               numbers->spread(gradients, scale, of, of_tokens);
                             });
    Tensor share_there = kernels::queued_to_device(share, device);
    const Tensor cotangent = kernels::queued_to_device(of_tokens, device);
    if (unit_gradient_.defined()) {
      kernels::scale_rows(unit_gradient_, unit_gradient_, cotangent);
      autograd::backward(hidden_, unit_gradient_);
    } else {
      autograd::backward(logprobs_, cotangent);
    }
    return share_there;
  }

 private:
  // A completion's tokens all have the gradient of its sum. So where the projection is frozen, the gradient of hidden
  // is made beside the log-probabilities, as for a sum of unit_ to each, while the logits are at hand; the loss then
  // scales its rows. A projection that trains computes the logits again in the backward.
  void project(const PairForwardOptions& options) {
    const autograd::LinearWeight& weight = model_.output_weight();
    const bool everything = options.measured == Measured::everything;
    if (weight.dense().requires_grad() && autograd::grad_enabled()) {
      logprobs_ = autograd::token_logprobs(hidden_, weight, inputs_.labels, inputs_.tokens.layout, model_.softcap(),
                                           1.0f, everything ? &entropy_ : nullptr, everything ? &correct_ : nullptr,
                                           options.aligned_logps ? &log_sum_sq_probs_ : nullptr, inputs_.labelled);
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
                                            .labels = inputs_.labels,
                                            .cu_seqlens = inputs_.tokens.layout.cu_seqlens,
                                            .scale = -unit_,  // log p = −loss
                                            .softcap = model_.softcap(),
                                            .labelled = inputs_.labelled});
    kernels::scale(loss, loss, -1.0);
    logprobs_ = loss;
  }

  void take_numbers(const PairForwardOptions& options, const Tensor& vocabulary_sum) {
    auto numbers = std::make_shared<PairNumbers>();
    numbers->cu_seqlens = inputs_.tokens.layout.cu_seqlens;
    numbers->prefix_lengths = batch_.prefixes.lengths;
    numbers->ld_alpha = options.ld_alpha;
    numbers->vocabulary = static_cast<double>(model_.output_weight().rows());
    numbers->logprobs = kernels::queued_to_host(logprobs_.value());
    if (options.aligned_logps) numbers->log_sum_sq_probs = kernels::queued_to_host(log_sum_sq_probs_);
    if (options.measured == Measured::everything) {
      const Tensor logits = Tensor::empty({hidden_.dim(0), 1}, logprobs_.dtype(), hidden_.value().device());
      kernels::linear_forward(logits, hidden_.value(), kernels::Weight(vocabulary_sum));
      numbers->logits = kernels::queued_to_host(logits);
      numbers->entropy = kernels::queued_to_host(entropy_);
      numbers->correct = kernels::queued_to_host(correct_);
    }
    numbers_ = std::move(numbers);
  }

  const nn::Transformer& model_;
  double loss_scale_, unit_;
  const PairBatch& batch_;
  ForwardInputs inputs_;
  nn::SharedPrefixAttention attention_;
  autograd::Variable hidden_, logprobs_;
  Tensor entropy_, correct_, log_sum_sq_probs_;
  Tensor unit_gradient_;  // of hidden, for a gradient of unit_ of every log-probability
  std::shared_ptr<const PairNumbers> numbers_;
};

template <class PerForward>
void for_each_forward(const PairPass& pass, StoredNumbers* stored, PerForward per_forward) {
  const Tensor vocabulary_sum = pass.options.measured == Measured::everything ? summed_rows(*pass.model) : Tensor();
  for (size_t i = 0; i < pass.batches.size(); ++i) {
    const PairBatch& batch = pass.batches[i];
    PairForward forward(pass, batch, inputs_of(batch.batch, stored), vocabulary_sum);
    per_forward(i, forward);
  }
}

}  // namespace

PairPass pair_pass(const nn::Transformer& model, const TrainingSet& pairs, std::span<const int64_t> rows,
                   const TrainingSettings& settings, const PairForwardOptions& options, MadeOfPairs made) {
  PairPass pass{.model = &model, .options = options, .batches = {}, .work = {}};
  PairWork work;
  work.made = std::move(made);
  size_t first = 0;
  for (const auto& cut :
       cut_pairs(pairs, rows, settings.per_device_train_batch_size, settings.max_tokens_per_forward)) {
    const int64_t first_pair = options.first_pair + static_cast<int64_t>(first);
    PairBatch batch = make_pair_batch(pairs, cut, static_cast<int32_t>(2 * first_pair), prompts_of(options));
    batch.first = first;
    first += cut.size();
    work.forwards.push_back({batch.batch.labels, options.ld_alpha ? tails_of(batch) : std::vector<int64_t>()});
    pass.batches.push_back(std::move(batch));
  }
  pass.work = std::make_shared<const PairWork>(std::move(work));
  return pass;
}

void queue_pairs(const PairPass& pass, const HostPart<PairWork>& work, StoredNumbers* stored) {
  const autograd::NoGradScope no_grad;
  for_each_forward(pass, stored, [&](size_t i, const PairForward& forward) {
    kernels::queue_host_work(pass.model->device(),
                             [numbers = forward.numbers(), work, i, first = pass.batches[i].first] {
                               work->made(first, numbers->sums(work->forwards[i]), {});
                             });
  });
}

std::vector<Tensor> learn_pairs(const PairPass& pass, const HostPart<PairWork>& work, StoredNumbers* stored) {
  std::vector<Tensor> losses;
  for_each_forward(pass, stored, [&](size_t i, PairForward& forward) { losses.push_back(forward.backward(i, work)); });
  return losses;
}

std::vector<PairSums> measure_pairs(const nn::Transformer& model, const TrainingSet& pairs,
                                    std::span<const int64_t> rows, const TrainingSettings& settings,
                                    const PairForwardOptions& options) {
  const auto result = std::make_shared<std::vector<PairSums>>(rows.size());
  const PairPass pass = pair_pass(model, pairs, rows, settings, options,
                                  [result](size_t first, std::span<const PairSums> sums, std::span<PairGradient>) {
                                    std::ranges::copy(sums, result->begin() + static_cast<std::ptrdiff_t>(first));
                                    return 0.0;
                                  });
  queue_pairs(pass, HostPart<PairWork>::of(pass.work));
  kernels::synchronize(model.device());
  return *result;
}

}  // namespace lathe::train
