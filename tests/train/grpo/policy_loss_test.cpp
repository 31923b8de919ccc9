// Losses, gradients and metrics of TRL's GRPOTrainer on the same numbers (tests/golden/grpo), and the published table.
#include "train/grpo/policy_loss.h"
#include "core/json_value.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/tiny_run.h"

namespace lathe::train {
namespace {

using nlohmann::json;
using Numbers = std::vector<double>;

double metric(const Metrics& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  ADD_FAILURE() << name << " is not among the metrics";
  return std::nan("");
}

struct Computed {
  double loss;
  std::vector<Numbers> gradients, entropy_gradients;
  Metrics metrics;
};

struct Batch {
  std::vector<Numbers> logprobs, old, ref;
  Numbers advantages;
  std::vector<bool> masked;
  std::vector<Numbers> entropies = {};
};

int64_t learnt_tokens(const Batch& batch) {
  size_t tokens = 0;
  for (size_t i = 0; i < batch.logprobs.size(); ++i) tokens += batch.masked[i] ? 0 : batch.logprobs[i].size();
  return static_cast<int64_t>(tokens);
}

Computed compute(const PolicyLossOptions& options, const PolicyBatchSize& size, const Batch& batch) {
  PolicyLoss loss(options, size);
  Computed result;
  for (size_t i = 0; i < batch.logprobs.size(); ++i) {
    result.gradients.emplace_back(batch.logprobs[i].size(), std::nan(""));
    result.entropy_gradients.push_back(result.gradients.back());
    loss.add({.logprobs = batch.logprobs[i],
              .old_logprobs = batch.old[i],
              .ref_logprobs = options.beta != 0 ? std::span<const double>(batch.ref[i]) : std::span<const double>(),
              .entropies = batch.entropies.empty() ? std::span<const double>() : batch.entropies[i],
              .advantage = batch.advantages[i],
              .masked = batch.masked[i]},
             result.gradients.back(), result.entropy_gradients.back());
  }
  result.loss = loss.loss();
  result.metrics = loss.metrics();
  return result;
}

PolicyLossOptions options_of(const json& given) {
  PolicyLossOptions options;
  options.loss_type = parse_policy_loss(given.value("loss_type", "dapo")).value();
  if (given.value("importance_sampling_level", "token") == "sequence")
    options.importance_sampling_level = ImportanceLevel::sequence;
  options.epsilon_high = given.value("epsilon_high", 0.2);
  if (given.contains("delta")) options.delta = given["delta"].get<double>();
  options.beta = given.value("beta", 0.0);
  options.use_bias_correction_kl = given.value("use_bias_correction_kl", true);
  options.entropy_coef = given.value("entropy_coef", 0.0);
  options.top_entropy_quantile = given.value("top_entropy_quantile", 1.0);
  if (given.contains("off_policy_mask_threshold"))
    options.off_policy_mask_threshold = given["off_policy_mask_threshold"].get<double>();
  options.max_completion_length = 8;
  return options;
}

TEST(PolicyLoss, EveryLossGradientAndMetricIsTrls) {
  const json cases = json::parse(bytes_of(golden("grpo/losses.json")));
  ASSERT_GE(cases.size(), 60u);
  for (const json& expected : cases) {
    SCOPED_TRACE(expected["options"].dump());
    const Batch batch{expected["logprobs"].get<std::vector<Numbers>>(), expected["old"].get<std::vector<Numbers>>(),
                      expected["ref"].get<std::vector<Numbers>>(), expected["advantages"].get<Numbers>(),
                      expected["masked"].get<std::vector<bool>>()};
    // TRL's micro-batch is one of `accumulation` like it in a step.
    const int64_t accumulation = expected["options"].value("accumulation", 1);
    const int64_t steps_per_generation = expected["options"].value("steps_per_generation", 1);
    const PolicyBatchSize size{
        .completions = static_cast<int64_t>(batch.logprobs.size()) * accumulation,
        .tokens = learnt_tokens(batch) * accumulation,
        .generation_tokens = expected["generation_tokens"].get<int64_t>(),
        .updates_per_generation = static_cast<double>(steps_per_generation) / static_cast<double>(accumulation)};
    const Computed computed = compute(options_of(expected["options"]), size, batch);
    // Both are in double, but for sapo's 1.05, which TRL rounds to float32; the file's gradients have eight digits.
    EXPECT_NEAR(computed.loss, expected["loss"].get<double>(), 2e-7);
    for (size_t i = 0; i < computed.gradients.size(); ++i)
      for (size_t t = 0; t < computed.gradients[i].size(); ++t)
        EXPECT_NEAR(computed.gradients[i][t], expected["gradients"][i][t].get<double>(), 1e-7) << i << " " << t;
    for (const auto& [name, value] : expected["metrics"].items())
      EXPECT_NEAR(metric(computed.metrics, name), value.get<double>(), 1e-6) << name;
    EXPECT_EQ(computed.metrics.size(), expected["metrics"].size());
  }
}

TEST(PolicyLoss, EntropiesAndTheOffPolicyMaskAreTrls) {
  const json cases = json::parse(bytes_of(golden("grpo/options.json")));
  ASSERT_GE(cases.size(), 50u);
  int dropped = 0;
  for (const json& expected : cases) {
    SCOPED_TRACE(expected["options"].dump());
    const PolicyLossOptions options = options_of(expected["options"]);
    const Batch batch{
        expected["logprobs"].get<std::vector<Numbers>>(), expected["old"].get<std::vector<Numbers>>(),
        expected["ref"].get<std::vector<Numbers>>(),      expected["advantages"].get<Numbers>(),
        expected["masked"].get<std::vector<bool>>(),      expected["entropies"].get<std::vector<Numbers>>()};
    Numbers entropies;
    for (size_t i = 0; i < batch.entropies.size(); ++i)
      if (!batch.masked[i]) entropies.insert(entropies.end(), batch.entropies[i].begin(), batch.entropies[i].end());
    const PolicyBatchSize size{.completions = static_cast<int64_t>(batch.logprobs.size()),
                               .tokens = learnt_tokens(batch),
                               .generation_tokens = expected["generation_tokens"].get<int64_t>(),
                               .entropy = entropy_floor(entropies, options.top_entropy_quantile)};
    const Computed computed = compute(options, size, batch);
    EXPECT_NEAR(computed.loss, expected["loss"].get<double>(), 2e-7);
    for (size_t i = 0; i < computed.gradients.size(); ++i)
      for (size_t t = 0; t < computed.gradients[i].size(); ++t) {
        EXPECT_NEAR(computed.gradients[i][t], expected["gradients"][i][t].get<double>(), 1e-7) << i << " " << t;
        EXPECT_NEAR(computed.entropy_gradients[i][t], expected["entropy_gradients"][i][t].get<double>(), 1e-7);
        dropped += computed.gradients[i][t] == 0 && !batch.masked[i];
      }
    for (const auto& [name, value] : expected["metrics"].items())
      EXPECT_NEAR(metric(computed.metrics, name), value.get<double>(), 1e-6) << name;
    EXPECT_EQ(computed.metrics.size(), expected["metrics"].size());
  }
  EXPECT_GT(dropped, 50);  // the masks do something
}

TEST(PolicyLoss, TheEntropyFloorIsAQuantileOfAllTokens) {
  const Numbers entropies = {3, 1, 2, 5, 4};
  EXPECT_EQ(entropy_floor(entropies, 1).tokens, 0);
  EXPECT_EQ(entropy_floor(entropies, 0.5).least, 3);
  EXPECT_EQ(entropy_floor(entropies, 0.5).tokens, 3);
  EXPECT_EQ(entropy_floor(entropies, 0).least, 5);
  EXPECT_NEAR(entropy_floor(entropies, 0.3).least, 3.8, 1e-12);
  EXPECT_EQ(entropy_floor({}, 0.3).tokens, 0);
}

// Two groups of two: rewards 1, 0 and 2, 1.5; the first completion is cut at the limit.
Batch published(bool mask_truncated) {
  return {{{-.9, -1.2, -.4, -2}, {-1.5, -.7, -1}, {-.3, -.6, -1.4, -.2}, {-2.2, -.5, -.1}},
          {{-1.1, -1.2, -.9, -1.9}, {-1, -.8, -.95}, {-.35, -.2, -1.5, -.6}, {-2, -.75, -.1}},
          {{-1, -1, -.5, -2.2}, {-1.2, -.9, -1}, {-.4, -.5, -1.2, -.3}, {-2, -.6, -.2}},
          {.707007, -.707007, .706907, -.706907},
          {mask_truncated, false, false, false}};
}

Computed published_loss(PolicyLossOptions options, bool mask_truncated = false, int64_t accumulation = 1,
                        double updates_per_generation = 1) {
  const Batch batch = published(mask_truncated);
  options.epsilon = 0.2;
  options.max_completion_length = 4;
  const int64_t tokens = learnt_tokens(batch);
  return compute(options,
                 {.completions = 4 * accumulation,
                  .tokens = tokens * accumulation,
                  .generation_tokens = tokens,
                  .updates_per_generation = updates_per_generation},
                 batch);
}

struct PublishedRow {
  const char* loss;
  double epsilon_high, token, token_plain_kl, token_no_kl, sequence, sequence_no_kl, token_masked;
};

TEST(PolicyLoss, ThePublishedTable) {
  const PublishedRow rows[] = {
      {"grpo", .28, -.024581, -.024528, -.025075, -.056467, -.057008, .169991},
      {"bnpo", .28, -.128474, -.128433, -.128963, -.159428, -.159960, .131451},
      {"dr_grpo", .28, -.112415, -.112379, -.112843, -.139499, -.139965, .082157},
      {"dapo", .28, -.128474, -.128433, -.128963, -.159428, -.159960, .131451},
      {"cispo", .28, .014630, .014671, .014141, .014673, .014141, -.068810},
      {"cispo", 5, .109254, .109295, .108765, .112769, .112237, -.184385},
      {"sapo", .28, -.093765, -.093712, -.094259, -.090024, -.090565, .292850},
      {"luspo", .28, -.449660, -.449514, -.451371, -.557997, -.559859, .328628},
      {"vespo", .28, -.065328, -.065286, -.065817, -.065285, -.065817, -.181341},
  };
  constexpr double digits = 1.5e-6;  // the table has six, the advantages in it too
  for (const PublishedRow& row : rows) {
    SCOPED_TRACE(row.loss);
    PolicyLossOptions options;
    options.loss_type = parse_policy_loss(row.loss).value();
    options.epsilon_high = row.epsilon_high;
    options.beta = .04;
    EXPECT_NEAR(published_loss(options).loss, row.token, digits);
    EXPECT_NEAR(published_loss(options, true).loss, row.token_masked, digits);
    options.use_bias_correction_kl = false;
    EXPECT_NEAR(published_loss(options).loss, row.token_plain_kl, digits);
    options.use_bias_correction_kl = true;
    options.importance_sampling_level = ImportanceLevel::sequence;
    EXPECT_NEAR(published_loss(options).loss, row.sequence, digits);
    options.beta = 0;
    EXPECT_NEAR(published_loss(options).loss, row.sequence_no_kl, digits);
    options.importance_sampling_level = ImportanceLevel::token;
    EXPECT_NEAR(published_loss(options).loss, row.token_no_kl, digits);
  }
}

TEST(PolicyLoss, ThePublishedMetricsAndNormalisers) {
  PolicyLossOptions options;
  options.epsilon_high = .28;
  options.beta = .04;
  const Computed token = published_loss(options);
  for (const auto& [name, value] : {std::pair("kl", .012226),
                                    {"clip_ratio/low_mean", .071429},
                                    {"clip_ratio/high_mean", .142857},
                                    {"clip_ratio/region_mean", .214286},
                                    {"clip_ratio/low_min", 0.0},
                                    {"clip_ratio/high_max", .25}})
    EXPECT_NEAR(metric(token.metrics, name), value, 1e-6) << name;
  const Computed masked = published_loss(options, true);
  for (const auto& [name, value] : {std::pair("kl", .011894),
                                    {"clip_ratio/low_mean", .1},
                                    {"clip_ratio/high_mean", .1},
                                    {"clip_ratio/region_mean", .2}})
    EXPECT_NEAR(metric(masked.metrics, name), value, 1e-6) << name;
  EXPECT_NEAR(published_loss(options, false, 2, 2).loss, -.256948, 1.5e-6) << "dapo, steps_per_generation 4";
  options.loss_type = PolicyLossType::grpo;
  EXPECT_NEAR(published_loss(options, false, 4).loss, -.006145, 1e-6) << "grpo, accumulation 4";
  options.importance_sampling_level = ImportanceLevel::sequence;
  EXPECT_NEAR(metric(published_loss(options).metrics, "kl"), .013296, 1e-6);
  options.importance_sampling_level = ImportanceLevel::token;
  options.use_bias_correction_kl = false;
  EXPECT_NEAR(metric(published_loss(options).metrics, "kl"), .013266, 1e-6);
}

TEST(PolicyLoss, OnPolicyTheGradientIsMinusTheAdvantage) {
  const Numbers logprobs = {-1.0, -0.5};
  for (const char* name : {"grpo", "bnpo", "dapo", "luspo", "dr_grpo"}) {
    PolicyLossOptions options;
    options.loss_type = parse_policy_loss(name).value();
    options.max_completion_length = 2;
    PolicyLoss loss(options, {.completions = 1, .tokens = 2, .generation_tokens = 2});
    Numbers gradients(2);
    loss.add({.logprobs = logprobs, .old_logprobs = logprobs, .ref_logprobs = {}, .advantage = 0.7}, gradients);
    const double weight = options.loss_type == PolicyLossType::luspo ? 1 : 0.5;
    EXPECT_EQ(gradients, (Numbers{-0.7 * weight, -0.7 * weight})) << name;
  }
}

}  // namespace
}  // namespace lathe::train
