// Losses of preference optimisation: from the log-probabilities of completions to a number and its gradients. Names and
// formulas are those of TRL 1.16's DPOTrainer; everything is in double.
//
// a = logπ(chosen) − logπref(chosen), b the same of rejected: sums over a completion's tokens, |·| their number.
// An f-divergence makes scores of them, f(a) and f(b); reverse_kl's are a and b. Δ = f(a) − f(b), x = βΔ, ε =
// label_smoothing. Those with • know no f-divergence but reverse_kl.
//
//   sigmoid       −logσ(x)                                       Rafailov et al. 2023
//   hinge         max(0, 1 − x)                                  Liu et al. 2023 (RSO)
//   ipo           (f(a)/|chosen| − f(b)/|rejected| − 1/(2β))²    Azar et al. 2023
//   exo_pair      σ(x)(logσ(x) − log(1 − ε)) + σ(−x)(logσ(−x) − log ε)             Ji et al. 2024; ε > 0
//   nca_pair    • −logσ(βa) − ½logσ(−βa) − ½logσ(−βb)            Chen et al. 2024
//   robust        (−(1 − ε)logσ(x) + ε logσ(−x)) / (1 − 2ε)      Chowdhury et al. 2024; ε < ½
//   bco_pair    • −logσ(βa) − logσ(−βb)                          Jung et al. 2024
//   sppo_hard   • (a − 1/(2β))² + (b + 1/(2β))²                  Wu et al. 2024
//   aot         • −(1 − ε)logσ(βδ) − ε logσ(−βδ), δ the i-th of logπ(chosen) − logπ(rejected), sorted, less the i-th of
//                 the reference's                                Melnyk et al. 2024
//   aot_unpaired •  the same, δ the i-th of a, sorted, less the i-th of b
//   apo_zero    • 1 − σ(βa) + σ(βb)                              D'Oosterlinck et al. 2024
//   apo_down    • σ(βa) + 1 − σ(β(a − b))
//   discopop      (1 − m)(−logσ(x)) + m·exp(−x), m = σ(x/τ)      Lu et al. 2024
//   sft           −logπ(chosen) / tokens, over all chosen tokens of the step
//   sigmoid_norm  −logσ(β(f(a)/|chosen| − f(b)/|rejected|))
//
// With use_weighting (WPO, Zhou et al. 2024) each pair's loss is multiplied by w(chosen) · w(rejected), which no
// gradient goes through: w = exp(mean over the completion's tokens of log p(token) − log Σ p²). Not for those that
// sort, and sft.
//
// With ld_alpha (LD-DPO, Liu et al. 2024) the sums logπ and logπref weigh what a completion has beyond the length of
// the shorter of the two by ld_alpha; sft's do not.
//
// f: reverse_kl t, forward_kl 1 − exp(−t), js_divergence log 2 + logσ(t), alpha_divergence
// (exp((α − 1)t) − 1)/(α − 1), its exponent at most 80 (Wang et al. 2023).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lathe::train {

enum class PreferenceLoss {
  sigmoid,
  hinge,
  ipo,
  exo_pair,
  nca_pair,
  robust,
  bco_pair,
  sppo_hard,
  aot,
  aot_unpaired,
  apo_zero,
  apo_down,
  discopop,
  sft,
  sigmoid_norm
};
std::optional<PreferenceLoss> parse_preference_loss(std::string_view name);
std::string preference_loss_names();  // "sigmoid, hinge, …"

enum class FDivergence { reverse_kl, forward_kl, js_divergence, alpha_divergence };
std::optional<FDivergence> parse_f_divergence(std::string_view name);

bool takes_f_divergence(PreferenceLoss loss);
bool takes_label_smoothing(PreferenceLoss loss);
// Whether a pair's loss depends on the other pairs of its step: aot and aot_unpaired, which sort.
bool compares_pairs(PreferenceLoss loss);

struct WeightedLoss {
  PreferenceLoss loss = PreferenceLoss::sigmoid;
  double weight = 1;
};

struct PreferenceLossOptions {
  std::vector<WeightedLoss> losses = {{}};  // which are added
  double beta = 0.1;
  double label_smoothing = 0;
  FDivergence f_divergence = FDivergence::reverse_kl;
  double f_alpha_divergence_coef = 0.5;
  double discopop_tau = 0.05;
  bool use_weighting = false;
  std::optional<double> ld_alpha;

  bool compares_pairs() const;
};

// Of the completions of one row: sums over their tokens, and how many there are.
struct PreferencePair {
  double chosen_logps = 0, rejected_logps = 0;
  double ref_chosen_logps = 0, ref_rejected_logps = 0;
  int64_t chosen_tokens = 0, rejected_tokens = 0;
  double weight = 1;                   // of use_weighting
  double chosen_unweighted_logps = 0;  // of sft, with ld_alpha

  double chosen_logratio() const { return chosen_logps - ref_chosen_logps; }
  double rejected_logratio() const { return rejected_logps - ref_rejected_logps; }
};

// ∂loss/∂logps: the gradient of every token's log-probability in the completion; with ld_alpha that of the tokens that
// count whole, and beside it ∂loss/∂chosen_unweighted_logps.
struct PairGradient {
  double chosen = 0, rejected = 0;
  double chosen_unweighted = 0;
};

// What the means are taken over: the whole step, however it is cut into forwards.
struct StepPairs {
  int64_t pairs = 0;
  int64_t chosen_tokens = 0;
};

// The share of these pairs in the step's loss, which is a mean over its pairs; gradients, one for each pair, are
// overwritten. Losses that compare pairs must be given all of the step. NaN and infinities go through.
double preference_loss(std::span<const PreferencePair> pairs, const StepPairs& step,
                       const PreferenceLossOptions& options, std::span<PairGradient> gradients);

}  // namespace lathe::train
