// Prompts with their completions through the model: the log-probability and the entropy of every completion token, and
// a gradient for each.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "train/settings/training_settings.h"
#include "train/step_graphs.h"
#include "train/training_set.h"

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

// What is made of the completions of a forward: of each, in order, `made` gets its index, its tokens, and where the
// pass goes back also room for their gradients, zeros; it gives its part of the loss.
using MadeOfCompletion = std::function<double(size_t, const CompletionTokens&, CompletionGradients)>;

// Where the tokens of a completion are predicted among those of a forward.
struct Predictions {
  size_t sequence, first, count;
};

// What work of the host needs to know of a pass.
struct PolicyWork {
  std::vector<std::vector<Predictions>> forwards;
  MadeOfCompletion made;
};

// Sequences on their way through a model, in forwards as the settings cut them. Nothing of a sequence depends on the
// cuts.
struct PolicyPass {
  const nn::Transformer* model;
  PolicyForwardOptions options;
  std::vector<MicroBatch> batches;
  std::shared_ptr<const PolicyWork> work;
};
PolicyPass policy_pass(const nn::Transformer& model, std::span<const CompletedPrompt> sequences,
                       const TrainingSettings& settings, const PolicyForwardOptions& options, MadeOfCompletion made);

// Queues a pass and, after each forward, its way back. What is made of completions is work of the host in the device's
// queue, whose rules hold for it (kernels/cuda/host_work.h), and is found in `work`: the pass's own, or that of the
// step that runs. The result has a tensor for each forward, on the device, which is finite where its loss is.
std::vector<Tensor> learn_completions(const PolicyPass& pass, const HostPart<PolicyWork>& work,
                                      StoredNumbers* stored = nullptr);
// The same without gradients: the same bits.
void queue_completions(const PolicyPass& pass, const HostPart<PolicyWork>& work, StoredNumbers* stored = nullptr);
// Waited for.
std::vector<CompletionTokens> measure_completions(const nn::Transformer& model,
                                                  std::span<const CompletedPrompt> sequences,
                                                  const TrainingSettings& settings,
                                                  const PolicyForwardOptions& options);

}  // namespace lathe::train
