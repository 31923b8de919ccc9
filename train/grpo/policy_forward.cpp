#include "train/grpo/policy_forward.h"

#include <numeric>

#include "autograd/ops/token_logprobs.h"
#include "autograd/recording.h"
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

struct Run {
  autograd::Variable logprobs;
  std::vector<double> values, entropies;  // of every token of the forward
};

Run run(const nn::Transformer& model, MicroBatch& batch, nn::AttentionContext& attention,
        const PolicyForwardOptions& options) {
  const kernels::ProfilerRange range("forward");
  const nn::TokenBatch& tokens = batch.tokens;
  if (options.adapter) batch.tokens.adapters.assign(static_cast<size_t>(tokens.layout.sequences()), *options.adapter);
  const autograd::Variable hidden = model.forward(tokens, attention, options.forward);
  Tensor entropy;
  Run result;
  result.logprobs = autograd::token_logprobs(hidden, model.output_weight(), batch.labels, tokens.layout,
                                             model.softcap(), options.temperature, &entropy);
  const auto doubles = [](const Tensor& tensor) {
    const Tensor wide = kernels::cast(kernels::moved(tensor, {}), DType::f64);
    const auto values = wide.span<double>();
    return std::vector<double>(values.begin(), values.end());
  };
  result.values = doubles(result.logprobs.value());
  result.entropies = doubles(entropy);
  return result;
}

// The token before a completion predicts its first: where the tokens of the sequence that ends at `end` are predicted.
size_t first_prediction(const CompletedPrompt& sequence, size_t end) { return end - sequence.completion.size() - 1; }

template <class PerForward>
void for_each_forward(std::span<const CompletedPrompt> sequences, const TrainingSettings& settings,
                      PerForward per_forward) {
  const TrainingSet set = set_of(sequences);
  std::vector<int64_t> rows(sequences.size());
  std::iota(rows.begin(), rows.end(), 0);
  int32_t first_sample = 0;
  for (const auto& cut :
       cut_into_forwards(set, rows, settings.per_device_train_batch_size, settings.max_tokens_per_forward)) {
    MicroBatch batch = make_micro_batch(set, cut, first_sample);
    first_sample += static_cast<int32_t>(cut.size());
    per_forward(cut, batch);
  }
}

}  // namespace

void learn_completions(const nn::Transformer& model, std::span<const CompletedPrompt> sequences,
                       const TrainingSettings& settings, const PolicyForwardOptions& options,
                       const std::function<void(size_t, const CompletionTokens&, std::span<double>)>& learn) {
  for_each_forward(sequences, settings, [&](const std::vector<int64_t>& cut, MicroBatch& batch) {
    nn::PackedAttention attention(model.config(), batch.tokens.layout);
    const Run forward = run(model, batch, attention, options);
    const Tensor gradients = Tensor::zeros({static_cast<int64_t>(forward.values.size())}, DType::f64);
    size_t end = 0;
    for (const int64_t sequence : cut) {
      const CompletedPrompt& own = sequences[static_cast<size_t>(sequence)];
      end += own.prompt.size() + own.completion.size();
      const size_t first = first_prediction(own, end), count = own.completion.size();
      const auto part = [&](const std::vector<double>& all) {
        return std::vector<double>(all.begin() + static_cast<std::ptrdiff_t>(first),
                                   all.begin() + static_cast<std::ptrdiff_t>(first + count));
      };
      learn(static_cast<size_t>(sequence), {part(forward.values), part(forward.entropies)},
            gradients.span<double>().subspan(first, count));
    }
    const kernels::ProfilerRange range("backward");
    const Tensor& of = forward.logprobs.value();
    autograd::backward(forward.logprobs, kernels::moved(kernels::cast(gradients, of.dtype()), of.device()));
  });
}

std::vector<std::vector<float>> completion_logprobs(const nn::Transformer& model,
                                                    std::span<const CompletedPrompt> sequences,
                                                    const TrainingSettings& settings,
                                                    const PolicyForwardOptions& options) {
  const autograd::NoGradScope no_grad;
  std::vector<std::vector<float>> result;
  for_each_forward(sequences, settings, [&](const std::vector<int64_t>& cut, MicroBatch& batch) {
    nn::PackedAttention attention(model.config(), batch.tokens.layout);
    const Run forward = run(model, batch, attention, options);
    size_t end = 0;
    for (const int64_t sequence : cut) {
      const CompletedPrompt& own = sequences[static_cast<size_t>(sequence)];
      end += own.prompt.size() + own.completion.size();
      const auto begin = forward.values.begin() + static_cast<std::ptrdiff_t>(first_prediction(own, end));
      result.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(own.completion.size()));
    }
  });
  return result;
}

}  // namespace lathe::train
