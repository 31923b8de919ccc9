// What a DPO config refuses, and in which words; lists; TRL's defaults.
#include "train/dpo/dpo_config.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/train/dpo/tiny_dpo.h"
#include "train/dpo/dpo_data.h"

namespace lathe::train {
namespace {

DpoConfig made(NamedValues values) {
  values.insert(values.begin(), {{"model", "m"}, {"dataset", "d"}, {"output_dir", "o"}});
  return make_config<DpoConfig>(values);
}

std::string refusal(const NamedValues& values) {
  try {
    made(values);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing";
}

testing::AssertionResult refuses(const NamedValues& values, const std::vector<std::string>& words) {
  const std::string text = refusal(values);
  for (const std::string& word : words)
    if (text.find(word) == std::string::npos)
      return testing::AssertionFailure() << "'" << word << "' is not in: " << text;
  return testing::AssertionSuccess();
}

TEST(DpoConfig, DefaultsAreTrls) {
  const DpoConfig config = resolved(made({}));
  EXPECT_EQ(config.learning_rate, 1e-6);
  EXPECT_EQ(config.beta, 0.1);
  EXPECT_EQ(config.max_length, 1024);
  EXPECT_EQ(config.loss_type, "sigmoid");
  EXPECT_TRUE(config.disable_dropout);
}

TEST(DpoConfig, ListsOfLossesAreTakenAsPeopleTypeThem) {
  for (const char* list : {"sigmoid bco_pair sft", "sigmoid,bco_pair,sft", " sigmoid, bco_pair ,sft"}) {
    const DpoConfig config = resolved(made({{"loss_type", list}, {"loss_weights", "0.8 0.2 1"}}));
    EXPECT_EQ(config.loss_type, "sigmoid,bco_pair,sft");
    const PreferenceLossOptions options = preference_loss_options(config);
    ASSERT_EQ(options.losses.size(), 3u);
    EXPECT_EQ(options.losses[1].loss, PreferenceLoss::bco_pair);
    EXPECT_EQ(options.losses[1].weight, 0.2);
  }
}

TEST(DpoConfig, AnUnknownLossListsTheKnownOnes) {
  EXPECT_TRUE(refuses({{"loss_type", "sigmoyd"}}, {"loss_type", "'sigmoyd'", "sigmoid, hinge, ipo", "sigmoid_norm"}));
  EXPECT_TRUE(refuses({{"loss_type", ","}}, {"loss_type: is empty"}));
}

TEST(DpoConfig, LossesThatDoNotAllowWhatIsAskedAreRefused) {
  EXPECT_TRUE(refuses({{"loss_type", "exo_pair"}}, {"label_smoothing", "greater than 0", "exo_pair", "1e-3"}));
  EXPECT_TRUE(refuses({{"loss_type", "robust"}, {"label_smoothing", "0.5"}}, {"[0.0, 0.5)", "robust"}));
  EXPECT_TRUE(refuses({{"loss_type", "ipo"}, {"label_smoothing", "0.1"}}, {"label_smoothing: has no use", "ipo"}));
  EXPECT_TRUE(refuses({{"label_smoothing", "0.1"}}, {"robust is sigmoid with it"}));
  EXPECT_TRUE(refuses({{"loss_type", "sigmoid nca_pair"}, {"f_divergence_type", "js_divergence"}},
                      {"js_divergence is only supported", "nca_pair needs reverse_kl"}));
  EXPECT_TRUE(refuses({{"loss_type", "sigmoid sft"}, {"loss_weights", "1"}},
                      {"same length as loss_type", "1 weights for 2 loss types"}));
  EXPECT_TRUE(refuses({{"loss_weights", "much"}}, {"loss_weights: expected a number, found 'much'"}));
  EXPECT_TRUE(refuses({{"beta", "0"}}, {"beta: must be above 0"}));
  EXPECT_TRUE(refuses({{"f_divergence_type", "kl"}}, {"'kl' is none of reverse_kl"}));
  EXPECT_TRUE(refuses({{"truncation_mode", "middle"}}, {"neither keep_start nor keep_end"}));
  EXPECT_EQ(refusal({{"loss_type", "exo_pair"}, {"label_smoothing", "0.001"}}), "nothing");
  for (const char* loss : {"aot", "aot_unpaired", "sigmoid sft"})
    EXPECT_TRUE(refuses({{"loss_type", loss}, {"use_weighting", "true"}}, {"use_weighting", "no loss of its own"}));
  EXPECT_TRUE(refuses({{"ld_alpha", "1.5"}}, {"ld_alpha: must be from 0 to 1"}));
  EXPECT_TRUE(refuses({{"sync_ref_model", "true"}}, {"sync_ref_model: goes with use_peft false"}));
  const NamedValues synced = {{"sync_ref_model", "true"}, {"use_peft", "false"}};
  EXPECT_EQ(refusal(synced), "nothing");
  for (const auto& [name, value, named] : {std::tuple("precompute_ref_log_probs", "true", "changes the reference"),
                                           {"ref_model_mixup_alpha", "2", "from 0 to 1"},
                                           {"ref_model_sync_steps", "0", "at least 1"}}) {
    NamedValues values = synced;
    values.emplace_back(name, value);
    EXPECT_TRUE(refuses(values, {name, named}));
  }
}

TEST(DpoConfig, ItsYamlGivesItBack) {
  const DpoConfig config = resolved(made({{"loss_type", "sigmoid sft"}, {"loss_weights", "1 0.5"}}));
  EXPECT_NE(resolved_yaml(config).find("loss_type: 'sigmoid,sft'"), std::string::npos) << resolved_yaml(config);
}

TEST(CutPairs, PairsAreNeverPartedAndCutsKeepToTheLimits) {
  const TrainingSet pairs = random_pairs(9, 4);
  std::vector<int64_t> rows(9);
  std::iota(rows.begin(), rows.end(), 0);
  for (const int64_t per_forward : {1, 4, 9})
    for (const int64_t max_tokens : {0, 50, 10}) {
      std::vector<int64_t> seen;
      for (const auto& cut : cut_pairs(pairs, rows, per_forward, max_tokens)) {
        EXPECT_LE(std::ssize(cut), per_forward);
        int64_t tokens = 0;
        for (const int64_t row : cut) tokens += pairs.row_tokens(row);
        EXPECT_TRUE(max_tokens == 0 || tokens <= max_tokens || cut.size() == 1);
        seen.insert(seen.end(), cut.begin(), cut.end());
      }
      EXPECT_EQ(seen, rows);
    }
}

}  // namespace
}  // namespace lathe::train
