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

// Runs the sequences in forwards as the settings cut them. For each, in order, `learn` gets its index, its tokens, and
// room for their gradients, zeros; after each forward they go back through the model. Nothing of a sequence depends on
// the cuts.
void learn_completions(const nn::Transformer& model, std::span<const CompletedPrompt> sequences,
                       const TrainingSettings& settings, const PolicyForwardOptions& options,
                       const std::function<void(size_t, const CompletionTokens&, CompletionGradients)>& learn);

// The same without gradients: the same bits.
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
