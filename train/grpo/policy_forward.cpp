#include "train/grpo/policy_forward.h"

#include <memory>
#include <numeric>

#include "autograd/ops/token_logprobs.h"
#include "autograd/recording.h"
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/profiler_range.h"
#include "kernels/cuda/runtime.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "nn/attention_context.h"
#include "train/objective.h"
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

// What the host makes something of once the device has done a forward: of every step of its shape. Everything is the
// host's.
struct ForwardNumbers {
  Tensor logprobs, entropies;  // copies that are queued

  CompletionTokens tokens_of(const Predictions& sequence) const {
    const auto part = [&](const Tensor& all) {
      std::vector<double> values;
      for (size_t i = sequence.first; i < sequence.first + sequence.count; ++i)
        values.push_back(all.dtype() == DType::f64 ? all.data<double>()[i] : static_cast<double>(all.data<float>()[i]));
      return values;
    };
    return {part(logprobs), part(entropies)};
  }
};

struct Run {
  std::unique_ptr<nn::PackedAttention> attention;  // which layers that are computed again ask once more
  autograd::Variable logprobs;
  autograd::Variable differentiable_entropies;  // undefined without entropy_gradients
  std::shared_ptr<const ForwardNumbers> numbers;
};

Run run(const PolicyPass& pass, ForwardInputs inputs) {
  const kernels::ProfilerRange range("forward");
  const nn::Transformer& model = *pass.model;
  const PolicyForwardOptions& options = pass.options;
  nn::TokenBatch& tokens = inputs.tokens;
  if (options.adapter) tokens.adapters.assign(static_cast<size_t>(tokens.layout.sequences()), *options.adapter);
  nn::ForwardOptions forward = options.forward;
  forward.adapter.stored_dropout_step = inputs.dropout_step;
  Run result;
  result.attention = std::make_unique<nn::PackedAttention>(model.config(), tokens.layout);
  const autograd::Variable hidden = model.forward(tokens, *result.attention, forward);
  Tensor entropy;
  if (options.entropy_gradients) {
    const autograd::TokenDistributions found =
        autograd::token_distributions(hidden, model.output_weight(), inputs.labels, tokens.layout, model.softcap(),
                                      options.temperature, inputs.labelled);
    result.logprobs = found.logprobs;
    result.differentiable_entropies = found.entropies;
    entropy = found.entropies.value();
  } else {
    result.logprobs =
        autograd::token_logprobs(hidden, model.output_weight(), inputs.labels, tokens.layout, model.softcap(),
                                 options.temperature, &entropy, nullptr, nullptr, inputs.labelled);
  }
  result.numbers = std::make_shared<ForwardNumbers>(ForwardNumbers{
      .logprobs = kernels::queued_to_host(result.logprobs.value()), .entropies = kernels::queued_to_host(entropy)});
  return result;
}

// Gradients that the host has yet to compute, of the values of a forward's tokens. Everything is the host's.
struct HostGradients {
  Tensor of_tokens;
  HostGradients(const Tensor& values, Device device)
      : of_tokens(kernels::host_tensor(values.shape(), values.dtype(), device)) {}

  void set(std::span<const double> gradients, double loss_scale) const {
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (of_tokens.dtype() == DType::f64) {
        of_tokens.data<double>()[i] = gradients[i] * loss_scale;
      } else {
        of_tokens.data<float>()[i] = static_cast<float>(gradients[i] * loss_scale);
      }
    }
  }
};

// Back from what the host will make of the forward's tokens; gives what is finite where their loss is.
Tensor backward(const Run& run, size_t forward, const PolicyForwardOptions& options, const HostPart<PolicyWork>& work) {
  const kernels::ProfilerRange range("backward");
  const Tensor& values = run.logprobs.value();
  const Device device = values.device();
  const bool both = options.entropy_gradients;
  const HostGradients of_logprobs(values, device), of_entropies(values, device);
  const Tensor mark = kernels::host_tensor({1}, DType::f32, device);
  kernels::queue_host_work(device, [=, numbers = run.numbers, loss_scale = options.loss_scale] {
    const auto tokens = static_cast<size_t>(numbers->logprobs.numel());
    std::vector<double> logprobs(tokens), entropies(both ? tokens : 0);
    double loss = 0;
    for (const Predictions& sequence : work->forwards[forward]) {
      const auto part = [&](std::vector<double>& all) {
        return all.empty() ? std::span<double>() : std::span(all).subspan(sequence.first, sequence.count);
      };
      loss += work->made(sequence.sequence, numbers->tokens_of(sequence), {part(logprobs), part(entropies)});
    }
    mark.data<float>()[0] = finite_mark(loss);
    of_logprobs.set(logprobs, loss_scale);
    of_entropies.set(entropies, loss_scale);
  });
  Tensor mark_there = kernels::queued_to_device(mark, device);
  const Tensor cotangent = kernels::queued_to_device(of_logprobs.of_tokens, device);
  if (both) {
    autograd::backward({{run.logprobs, cotangent},
                        {run.differentiable_entropies, kernels::queued_to_device(of_entropies.of_tokens, device)}});
  } else {
    autograd::backward(run.logprobs, cotangent);
  }
  return mark_there;
}

}  // namespace

PolicyPass policy_pass(const nn::Transformer& model, std::span<const CompletedPrompt> sequences,
                       const TrainingSettings& settings, const PolicyForwardOptions& options, MadeOfCompletion made) {
  PolicyPass pass{.model = &model, .options = options, .batches = {}, .work = {}};
  PolicyWork work;
  work.made = std::move(made);
  const TrainingSet set = set_of(sequences);
  std::vector<int64_t> rows(sequences.size());
  std::iota(rows.begin(), rows.end(), 0);
  int32_t first_sample = options.first_sample;
  for (const auto& cut :
       cut_into_forwards(set, rows, settings.per_device_train_batch_size, settings.max_tokens_per_forward)) {
    pass.batches.push_back(make_micro_batch(set, cut, first_sample));
    first_sample += static_cast<int32_t>(cut.size());
    size_t end = 0;
    std::vector<Predictions>& predictions = work.forwards.emplace_back();
    for (const int64_t sequence : cut) {
      const auto& [prompt, completion] = sequences[static_cast<size_t>(sequence)];
      end += prompt.size() + completion.size();
      // The token before a completion predicts its first.
      predictions.push_back({static_cast<size_t>(sequence), end - completion.size() - 1, completion.size()});
    }
  }
  pass.work = std::make_shared<const PolicyWork>(std::move(work));
  return pass;
}

std::vector<Tensor> learn_completions(const PolicyPass& pass, const HostPart<PolicyWork>& work, StoredNumbers* stored) {
  std::vector<Tensor> losses;
  for (size_t i = 0; i < pass.batches.size(); ++i)
    losses.push_back(backward(run(pass, inputs_of(pass.batches[i], stored)), i, pass.options, work));
  return losses;
}

void queue_completions(const PolicyPass& pass, const HostPart<PolicyWork>& work, StoredNumbers* stored) {
  const autograd::NoGradScope no_grad;
  for (size_t i = 0; i < pass.batches.size(); ++i) {
    const Run forward = run(pass, inputs_of(pass.batches[i], stored));
    kernels::queue_host_work(pass.model->device(), [numbers = forward.numbers, work, i] {
      for (const Predictions& sequence : work->forwards[i])
        work->made(sequence.sequence, numbers->tokens_of(sequence), {});
    });
  }
}

std::vector<CompletionTokens> measure_completions(const nn::Transformer& model,
                                                  std::span<const CompletedPrompt> sequences,
                                                  const TrainingSettings& settings,
                                                  const PolicyForwardOptions& options) {
  const auto result = std::make_shared<std::vector<CompletionTokens>>(sequences.size());
  const PolicyPass pass = policy_pass(model, sequences, settings, options,
                                      [result](size_t i, const CompletionTokens& tokens, CompletionGradients) {
                                        (*result)[i] = tokens;
                                        return 0.0;
                                      });
  queue_completions(pass, HostPart<PolicyWork>::of(pass.work));
  kernels::synchronize(model.device());
  return std::move(*result);
}

}  // namespace lathe::train
