// Pairs of sequences through the model: what it says of their completions, and gradients back through it. The pairs of
// a forward lie end to end without padding; nothing of a pair depends on the others or on the cuts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "train/dpo/pair_batch.h"
#include "train/dpo/preference_loss.h"
#include "train/settings/training_settings.h"
#include "train/step_graphs.h"
#include "train/training_set.h"

namespace lathe::train {

// Sums over the tokens of a completion, in double, in their order.
struct CompletionSums {
  double logps = 0;             // with ld_alpha
  double unweighted_logps = 0;  // without
  double aligned_logps = 0;     // of log p(token) − log Σ p², for use_weighting
  double entropy = 0;           // nats
  double logits = 0;            // of each token the mean over the vocabulary, before a cap
  int64_t correct = 0;          // the token is the likeliest
  int64_t tokens = 0;
};

struct PairSums {
  CompletionSums chosen, rejected;
  int64_t tokens = 0;  // of both sequences, prompts included
};

enum class Measured { logps, everything };

struct PairForwardOptions {
  std::optional<std::string> adapter;  // "" for none; not given: the model's only one
  Measured measured = Measured::everything;
  nn::ForwardOptions forward;
  std::optional<double> ld_alpha = {};  // preference_loss.h
  bool aligned_logps = false;           // whether they are wanted
  double loss_scale = 1.0;              // of the gradients (train/loss_scale.h)
  int64_t first_pair = 0;               // the number of the first row within its step, which random numbers go by
};

// What is made of the pairs of a forward: `made` gets the index of its first row and its pairs, and where the pass goes
// back also room for ∂loss/∂logps of each; it gives their share of the loss.
using MadeOfPairs = std::function<double(size_t first, std::span<const PairSums> pairs, std::span<PairGradient>)>;

// What work of the host needs to know of a pass, forward by forward.
struct PairWork {
  struct Forward {
    Tensor labels;
    std::vector<int64_t> tail_begins;  // with ld_alpha
  };
  std::vector<Forward> forwards;
  MadeOfPairs made;
};

// Rows of a set on their way through a model, cut into forwards. Each row has two sequences, the chosen one first.
struct PairPass {
  const nn::Transformer* model;
  PairForwardOptions options;
  std::vector<PairBatch> batches;
  std::shared_ptr<const PairWork> work;
};
PairPass pair_pass(const nn::Transformer& model, const TrainingSet& pairs, std::span<const int64_t> rows,
                   const TrainingSettings& settings, const PairForwardOptions& options, MadeOfPairs made);

// Queues a pass without gradients; what is made of its pairs is work of the host in the device's queue, whose rules
// hold for it (kernels/cuda/host_work.h), and is found in `work`: the pass's own, or that of the step that runs.
void queue_pairs(const PairPass& pass, const HostPart<PairWork>& work, StoredNumbers* stored = nullptr);
// And back through the model. The result has a tensor for each forward, on the device, which is finite where its share
// of the loss is.
std::vector<Tensor> learn_pairs(const PairPass& pass, const HostPart<PairWork>& work, StoredNumbers* stored = nullptr);

// Without gradients. Waits for the device.
std::vector<PairSums> measure_pairs(const nn::Transformer& model, const TrainingSet& pairs,
                                    std::span<const int64_t> rows, const TrainingSettings& settings,
                                    const PairForwardOptions& options);

}  // namespace lathe::train
