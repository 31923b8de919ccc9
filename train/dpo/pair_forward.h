// Pairs of sequences through the model: what it says of their completions, and gradients back through it. The pairs of
// a forward lie end to end without padding; nothing of a pair depends on the others or on the cuts.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/transformer.h"
#include "train/dpo/preference_loss.h"
#include "train/settings/training_settings.h"
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

// Each row of `pairs` has two sequences, the chosen one first. Without gradients. Waits for the device.
std::vector<PairSums> measure_pairs(const nn::Transformer& model, const TrainingSet& pairs,
                                    std::span<const int64_t> rows, const TrainingSettings& settings,
                                    const PairForwardOptions& options);

// The same, queued: of each forward `found` gets the index of its first row and its pairs, as work of the host in the
// device's queue, whose rules hold for it (kernels/cuda/host_work.h).
using FoundPairs = std::function<void(size_t first, std::span<const PairSums> pairs)>;
void queue_pairs(const nn::Transformer& model, const TrainingSet& pairs, std::span<const int64_t> rows,
                 const TrainingSettings& settings, const PairForwardOptions& options, const FoundPairs& found);

// As queue_pairs, and back: `learn` also gets room for ∂loss/∂logps of each pair, and gives the pairs' share of the
// loss. The result has a tensor for each forward, on the device, which is finite where that share is.
using LearnPairs = std::function<double(size_t first, std::span<const PairSums> pairs, std::span<PairGradient>)>;
std::vector<Tensor> learn_pairs(const nn::Transformer& model, const TrainingSet& pairs, std::span<const int64_t> rows,
                                const TrainingSettings& settings, const PairForwardOptions& options,
                                const LearnPairs& learn);

}  // namespace lathe::train
