// Losses of preference optimisation: TRL's numbers for one pair and for two, TRL's losses and gradients of random
// batches (tests/golden/dpo), and gradients against numerical differentiation.
#include "train/dpo/preference_loss.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/tiny_run.h"

namespace lathe::train {
namespace {

using nlohmann::json;

struct Computed {
  double loss = 0;
  std::vector<PairGradient> gradients;
};

Computed compute(const std::vector<PreferencePair>& pairs, const PreferenceLossOptions& options) {
  StepPairs step;
  for (const PreferencePair& pair : pairs) {
    ++step.pairs;
    step.chosen_tokens += pair.chosen_tokens;
  }
  Computed computed{0, std::vector<PairGradient>(pairs.size(), {NAN, NAN})};
  computed.loss = preference_loss(pairs, step, options, computed.gradients);
  return computed;
}

PreferenceLossOptions only(PreferenceLoss loss, double label_smoothing = 0) {
  PreferenceLossOptions options;
  options.losses = {{loss, 1}};
  options.label_smoothing = label_smoothing;
  return options;
}

// a = 1.5 over 10 tokens, b = −0.5 over 20; the policy's sums are −10.5 and −30.5.
const PreferencePair pair_of_the_table = {-10.5, -30.5, -12, -30, 10, 20};
const PreferencePair second_pair = {-8.3, -9.1, -8, -10, 10, 20};  // a = −0.3, b = 0.9

struct TableEntry {
  const char* name;
  double label_smoothing, loss;
};
class Table : public testing::TestWithParam<TableEntry> {};
INSTANTIATE_TEST_SUITE_P(Trl, Table,
                         testing::Values(TableEntry{"sigmoid", 0, 0.598139}, TableEntry{"hinge", 0, 0.8},
                                         TableEntry{"ipo", 0, 23.280625}, TableEntry{"exo_pair", 0.001, 2.422015},
                                         TableEntry{"exo_pair", 0.1, 0.406304}, TableEntry{"nca_pair", 0, 1.340665},
                                         TableEntry{"robust", 0, 0.598139}, TableEntry{"robust", 0.1, 0.573139},
                                         TableEntry{"bco_pair", 0, 1.289417}, TableEntry{"sppo_hard", 0, 32.5},
                                         TableEntry{"aot", 0, 0.598139}, TableEntry{"aot", 0.1, 0.618139},
                                         TableEntry{"aot_unpaired", 0, 0.598139},
                                         TableEntry{"aot_unpaired", 0.1, 0.618139}, TableEntry{"apo_zero", 0, 0.950073},
                                         TableEntry{"apo_down", 0, 0.987596}, TableEntry{"discopop", 0, 0.814763},
                                         TableEntry{"sft", 0, 1.05}, TableEntry{"sigmoid_norm", 0, 0.684435}));

TEST_P(Table, IsTrlsNumber) {
  const PreferenceLoss loss = parse_preference_loss(GetParam().name).value();
  EXPECT_NEAR(compute({pair_of_the_table}, only(loss, GetParam().label_smoothing)).loss, GetParam().loss, 5e-7);
}

TEST(PreferenceLoss, SortsOverTwoPairs) {
  EXPECT_NEAR(compute({pair_of_the_table, second_pair}, only(PreferenceLoss::sigmoid)).loss, 0.676542, 5e-7);
  EXPECT_NEAR(compute({pair_of_the_table, second_pair}, only(PreferenceLoss::aot_unpaired)).loss, 0.673397, 5e-7);
}

TEST(PreferenceLoss, MeasuresDistanceByFDivergences) {
  PreferenceLossOptions options = only(PreferenceLoss::sigmoid);
  for (const auto& [name, loss] : {std::pair("forward_kl", 0.624406), std::pair("js_divergence", 0.655260),
                                   std::pair("alpha_divergence", 0.615272)}) {
    options.f_divergence = parse_f_divergence(name).value();
    EXPECT_NEAR(compute({pair_of_the_table}, options).loss, loss, 5e-7) << name;
  }
}

TEST(PreferenceLoss, IsMinusLogSigmoidOfTheMargin) {
  for (const auto& [margin, loss] : {std::pair(0.0, 0.6931), std::pair(1.0, 0.3133), std::pair(2.0, 0.1269)})
    EXPECT_NEAR(compute({{10 * margin, 0, 0, 0, 1, 1}}, only(PreferenceLoss::sigmoid)).loss, loss, 5e-5);
}

PreferenceLossOptions options_of(const json& given) {
  PreferenceLossOptions options;
  options.losses.clear();
  for (size_t i = 0; i < given.at("loss_type").size(); ++i)
    options.losses.push_back({parse_preference_loss(given["loss_type"][i].get<std::string>()).value(),
                              given.contains("loss_weights") ? given["loss_weights"][i].get<double>() : 1});
  options.beta = given.value("beta", 0.1);
  options.label_smoothing = given.value("label_smoothing", 0.0);
  options.f_divergence = parse_f_divergence(given.value("f_divergence_type", "reverse_kl")).value();
  options.f_alpha_divergence_coef = given.value("f_alpha_divergence_coef", 0.5);
  return options;
}

std::vector<PreferencePair> pairs_of(const json& given) {
  std::vector<PreferencePair> pairs;
  for (size_t i = 0; i < given.at("tokens").at("chosen").size(); ++i)
    pairs.push_back({given["logps"]["chosen"][i], given["logps"]["rejected"][i], given["ref_logps"]["chosen"][i],
                     given["ref_logps"]["rejected"][i], given["tokens"]["chosen"][i], given["tokens"]["rejected"][i]});
  return pairs;
}

json golden_losses() { return json::parse(bytes_of(golden("dpo/losses.json"))); }

TEST(PreferenceLossGolden, LossesAndGradientsAreTrls) {
  size_t compared = 0;
  for (const json& given : golden_losses()) {
    SCOPED_TRACE(given.at("options").dump());
    const Computed computed = compute(pairs_of(given), options_of(given.at("options")));
    const double loss = given.at("loss");
    EXPECT_NEAR(computed.loss, loss, 1e-5 * std::max(1.0, std::abs(loss)));
    for (size_t i = 0; i < computed.gradients.size(); ++i) {
      const double chosen = given["gradients"]["chosen"][i], rejected = given["gradients"]["rejected"][i];
      EXPECT_NEAR(computed.gradients[i].chosen, chosen, 1e-5 * std::max(1e-2, std::abs(chosen)));
      EXPECT_NEAR(computed.gradients[i].rejected, rejected, 1e-5 * std::max(1e-2, std::abs(rejected)));
    }
    ++compared;
  }
  EXPECT_GT(compared, 55u);
}

// TRL makes some of its numbers in float32; this holds the gradients to more digits. With central differences of step h
// the error is h²/6 times a third derivative of at most a few hundred here (discopop), and 1e-16/h of rounding.
TEST(PreferenceLossGolden, GradientsAreThoseOfNumericalDifferentiation) {
  constexpr double h = 1e-5;
  for (const json& given : golden_losses()) {
    SCOPED_TRACE(given.at("options").dump());
    const PreferenceLossOptions options = options_of(given.at("options"));
    std::vector<PreferencePair> pairs = pairs_of(given);
    const std::vector<PairGradient> gradients = compute(pairs, options).gradients;
    const auto slope = [&](double& logps) {
      const double at = logps;
      logps = at + h;
      const double above = compute(pairs, options).loss;
      logps = at - h;
      const double below = compute(pairs, options).loss;
      logps = at;
      return (above - below) / (2 * h);
    };
    for (size_t i = 0; i < pairs.size(); ++i) {
      EXPECT_NEAR(gradients[i].chosen, slope(pairs[i].chosen_logps),
                  2e-7 * std::max(1.0, std::abs(gradients[i].chosen)));
      EXPECT_NEAR(gradients[i].rejected, slope(pairs[i].rejected_logps),
                  2e-7 * std::max(1.0, std::abs(gradients[i].rejected)));
    }
  }
}

TEST(PreferenceLoss, AStepsGradientsDoNotDependOnHowItIsCut) {
  const std::vector<PreferencePair> pairs = {pair_of_the_table, second_pair};
  PreferenceLossOptions options;
  options.losses = {{PreferenceLoss::sigmoid, 0.8}, {PreferenceLoss::bco_pair, 0.2}, {PreferenceLoss::sft, 1.0}};
  const Computed whole = compute(pairs, options);
  for (size_t i = 0; i < pairs.size(); ++i) {
    PairGradient alone;
    preference_loss(std::span(pairs).subspan(i, 1), {2, 20}, options, std::span(&alone, 1));
    EXPECT_EQ(alone.chosen, whole.gradients[i].chosen);
    EXPECT_EQ(alone.rejected, whole.gradients[i].rejected);
  }
}

TEST(PreferenceLoss, HugeMarginsStayFinite) {
  const std::vector<PreferencePair> won = {{0, -9000, -9000, 0, 3, 3}}, lost = {{-9000, 0, 0, -9000, 3, 3}};
  for (const PreferenceLoss loss : {PreferenceLoss::sigmoid, PreferenceLoss::robust, PreferenceLoss::exo_pair,
                                    PreferenceLoss::nca_pair, PreferenceLoss::aot, PreferenceLoss::apo_down})
    for (const auto& pairs : {won, lost}) {
      const Computed computed = compute(pairs, only(loss, takes_label_smoothing(loss) ? 0.1 : 0));
      EXPECT_TRUE(std::isfinite(computed.loss));
      EXPECT_TRUE(std::isfinite(computed.gradients[0].chosen));
    }
}

TEST(PreferenceLoss, ANumberThatIsNoneShows) {
  for (const PreferenceLoss loss : {PreferenceLoss::sigmoid, PreferenceLoss::hinge, PreferenceLoss::ipo})
    EXPECT_TRUE(std::isnan(compute({{NAN, -1, -1, -1, 1, 1}}, only(loss)).loss));
}

}  // namespace
}  // namespace lathe::train
