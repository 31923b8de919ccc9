// Prompts with their completions through the model: the log-probability and the entropy of every completion token, and
// a gradient for each.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "train/settings/training_settings.h"

namespace lathe::train {

struct CompletedPrompt {
  std::span<const int32_t> prompt, completion;
};

struct PolicyForwardOptions {
  std::optional<std::string> adapter;  // "" for none; not given: the model's only one
  float temperature = 1.0f;
  double loss_scale = 1.0;  // of the gradients (train/loss_scale.h)
  nn::ForwardOptions forward;
  bool entropy_gradients = false;  // whether the loss depends on the entropies
  int32_t first_sample = 0;        // the first sequence's number in the step, which keys dropout
};

// What the model says of a completion's tokens, in double.
struct CompletionTokens {
  std::vector<double> logprobs, entropies;
};

// Room for ∂loss/∂logprobs and ∂loss/∂entropies of a completion's tokens, the latter empty without entropy_gradients.
struct CompletionGradients {
  std::span<double> logprobs, entropies;
};

// Queues the sequences in forwards as the settings cut them. For each, in order, `learn` gets its index, its tokens,
// and room for their gradients, zeros, and gives its part of the loss, as work of the host in the device's queue, whose
// rules hold for it (kernels/cuda/host_work.h); after each forward they go back through the model. Nothing of a
// sequence depends on the cuts. The result has a tensor for each forward, on the device, which is finite where its loss
// is.
using LearnCompletion = std::function<double(size_t, const CompletionTokens&, CompletionGradients)>;
std::vector<Tensor> learn_completions(const nn::Transformer& model, std::span<const CompletedPrompt> sequences,
                                      const TrainingSettings& settings, const PolicyForwardOptions& options,
                                      const LearnCompletion& learn);

// The same without gradients: the same bits.
using FoundCompletion = std::function<void(size_t, const CompletionTokens&)>;
void queue_completions(const nn::Transformer& model, std::span<const CompletedPrompt> sequences,
                       const TrainingSettings& settings, const PolicyForwardOptions& options,
                       const FoundCompletion& found);
// Waited for.
std::vector<CompletionTokens> measure_completions(const nn::Transformer& model,
                                                  std::span<const CompletedPrompt> sequences,
                                                  const TrainingSettings& settings,
                                                  const PolicyForwardOptions& options);

// The log-probabilities alone.
std::vector<std::vector<float>> completion_logprobs(const nn::Transformer& model,
                                                    std::span<const CompletedPrompt> sequences,
                                                    const TrainingSettings& settings,
                                                    const PolicyForwardOptions& options);

}  // namespace lathe::train
