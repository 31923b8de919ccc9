#include "train/grpo/policy_forward.h"

#include <numeric>

#include "autograd/ops/token_logprobs.h"
#include "autograd/recording.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/profiler_range.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/attention_context.h"
#include "train/training_set.h"

namespace lathe::train {
namespace {

TrainingSet set_of(std::span<const CompletedPrompt> sequences) {
  TrainingSet set;
  for (const auto& [prompt, completion] : sequences) {
    std::vector<int32_t> ids(prompt.begin(), prompt.end()), labels(prompt.size(), kernels::ignored_label);
    ids.insert(ids.end(), completion.begin(), completion.end());
    labels.insert(labels.end(), completion.begin(), completion.end());
    set.add_row(ids, labels);
  }
  return set;
}

std::vector<double> doubles(const Tensor& tensor) {
  const Tensor wide = kernels::cast(kernels::moved(tensor, {}), DType::f64);
  const auto values = wide.span<double>();
  return {values.begin(), values.end()};
}

struct Run {
  autograd::Variable logprobs;
  autograd::Variable differentiable_entropies;  // undefined without entropy_gradients
  std::vector<double> values, entropies;        // of every token of the forward
};

Run run(const nn::Transformer& model, MicroBatch& batch, nn::AttentionContext& attention,
        const PolicyForwardOptions& options) {
  const kernels::ProfilerRange range("forward");
  const nn::TokenBatch& tokens = batch.tokens;
  if (options.adapter) batch.tokens.adapters.assign(static_cast<size_t>(tokens.layout.sequences()), *options.adapter);
  const autograd::Variable hidden = model.forward(tokens, attention, options.forward);
  Tensor entropy;
  Run result;
  if (options.entropy_gradients) {
    const autograd::TokenDistributions found = autograd::token_distributions(
        hidden, model.output_weight(), batch.labels, tokens.layout, model.softcap(), options.temperature);
    result.logprobs = found.logprobs;
    result.differentiable_entropies = found.entropies;
    entropy = found.entropies.value();
  } else {
    result.logprobs = autograd::token_logprobs(hidden, model.output_weight(), batch.labels, tokens.layout,
                                               model.softcap(), options.temperature, &entropy);
  }
  result.values = doubles(result.logprobs.value());
  result.entropies = doubles(entropy);
  return result;
}

// The token before a completion predicts its first: where the tokens of the sequence that ends at `end` are predicted.
size_t first_prediction(const CompletedPrompt& sequence, size_t end) { return end - sequence.completion.size() - 1; }

template <class PerForward>
void for_each_forward(std::span<const CompletedPrompt> sequences, const TrainingSettings& settings,
                      int32_t first_sample, PerForward per_forward) {
  const TrainingSet set = set_of(sequences);
  std::vector<int64_t> rows(sequences.size());
  std::iota(rows.begin(), rows.end(), 0);
  for (const auto& cut :
       cut_into_forwards(set, rows, settings.per_device_train_batch_size, settings.max_tokens_per_forward)) {
    MicroBatch batch = make_micro_batch(set, cut, first_sample);
    first_sample += static_cast<int32_t>(cut.size());
    per_forward(cut, batch);
  }
}

// Of the sequence whose tokens end at `end`.
CompletionTokens tokens_of(const Run& forward, const CompletedPrompt& sequence, size_t end) {
  const auto part = [&](const std::vector<double>& all) {
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(first_prediction(sequence, end));
    return std::vector<double>(first, first + static_cast<std::ptrdiff_t>(sequence.completion.size()));
  };
  return {part(forward.values), part(forward.entropies)};
}

Tensor like(const Tensor& gradients, const Tensor& value, double loss_scale) {
  if (loss_scale != 1.0) kernels::scale(gradients, gradients, loss_scale);
  return kernels::moved(kernels::cast(gradients, value.dtype()), value.device());
}

}  // namespace

void learn_completions(const nn::Transformer& model, std::span<const CompletedPrompt> sequences,
                       const TrainingSettings& settings, const PolicyForwardOptions& options,
                       const std::function<void(size_t, const CompletionTokens&, CompletionGradients)>& learn) {
  for_each_forward(sequences, settings, options.first_sample, [&](const std::vector<int64_t>& cut, MicroBatch& batch) {
    nn::PackedAttention attention(model.config(), batch.tokens.layout);
    const Run forward = run(model, batch, attention, options);
    const Shape all{static_cast<int64_t>(forward.values.size())};
    const Tensor of_logprobs = Tensor::zeros(all, DType::f64);
    const Tensor of_entropies = options.entropy_gradients ? Tensor::zeros(all, DType::f64) : Tensor();
    size_t end = 0;
    for (const int64_t sequence : cut) {
      const CompletedPrompt& own = sequences[static_cast<size_t>(sequence)];
      end += own.prompt.size() + own.completion.size();
      const auto part = [&](const Tensor& gradients) {
        return gradients.defined() ? gradients.span<double>().subspan(first_prediction(own, end), own.completion.size())
                                   : std::span<double>();
      };
      learn(static_cast<size_t>(sequence), tokens_of(forward, own, end), {part(of_logprobs), part(of_entropies)});
    }
    const kernels::ProfilerRange range("backward");
    const Tensor& value = forward.logprobs.value();
    if (options.entropy_gradients) {
      autograd::backward({{forward.logprobs, like(of_logprobs, value, options.loss_scale)},
                          {forward.differentiable_entropies, like(of_entropies, value, options.loss_scale)}});
    } else {
      autograd::backward(forward.logprobs, like(of_logprobs, value, options.loss_scale));
    }
  });
}

std::vector<CompletionTokens> measure_completions(const nn::Transformer& model,
                                                  std::span<const CompletedPrompt> sequences,
                                                  const TrainingSettings& settings,
                                                  const PolicyForwardOptions& options) {
  const autograd::NoGradScope no_grad;
  std::vector<CompletionTokens> result;
  for_each_forward(sequences, settings, options.first_sample, [&](const std::vector<int64_t>& cut, MicroBatch& batch) {
    nn::PackedAttention attention(model.config(), batch.tokens.layout);
    const Run forward = run(model, batch, attention, options);
    size_t end = 0;
    for (const int64_t sequence : cut) {
      const CompletedPrompt& own = sequences[static_cast<size_t>(sequence)];
      end += own.prompt.size() + own.completion.size();
      result.push_back(tokens_of(forward, own, end));
    }
  });
  return result;
}

std::vector<std::vector<float>> completion_logprobs(const nn::Transformer& model,
                                                    std::span<const CompletedPrompt> sequences,
                                                    const TrainingSettings& settings,
                                                    const PolicyForwardOptions& options) {
  std::vector<std::vector<float>> result;
  for (const CompletionTokens& tokens : measure_completions(model, sequences, settings, options))
    result.emplace_back(tokens.logprobs.begin(), tokens.logprobs.end());
  return result;
}

}  // namespace lathe::train
