// A method's config is tables put together: one that is not SFT's gets the same flags, file, checks and comparison on
// resume.
#include "train/settings/run_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/error.h"

namespace lathe::train {
namespace {

struct PairConfig : RunConfig, DataSettings {
  static constexpr const char *method = "pairs", *command = "pairs";
  double beta = 0.1;
  double resolved_learning_rate() const { return learning_rate.value_or(1e-6); }
};

Fields fields_of(PairConfig& c) {
  const Fields own = {{"beta", Group::optimisation, "strength", Shapes::result, &c.beta}};
  return composed(
      {model_fields(c), data_fields(c, "pairs of", "margins"), own, adapter_fields(c), training_fields(c, "1e-6")});
}

void check(const PairConfig& c, Complaints& wrong) {
  check_model(c, wrong);
  wrong.require_not_negative("beta", c.beta);
}

NamedValues complete() { return {{"model", "m"}, {"dataset", "d"}, {"output_dir", "o"}, {"beta", "0.5"}}; }

TEST(RunConfig, AMethodsSettingsLieAmongTheSharedOnesByGroup) {
  PairConfig config;
  std::vector<Group> groups;
  std::set<std::string> names;
  for (const Field& field : fields_of(config)) {
    groups.push_back(field.group);
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
  }
  EXPECT_TRUE(std::is_sorted(groups.begin(), groups.end()));
  EXPECT_TRUE(names.contains("beta") && names.contains("lora_r") && names.contains("max_steps"));
  EXPECT_FALSE(names.contains("packing")) << "SFT's alone";
}

TEST(RunConfig, AMethodHasItsOwnDefaultsFileAndComparison) {
  const PairConfig config = make_config<PairConfig>(complete());
  EXPECT_EQ(config.beta, 0.5);
  const std::string yaml = resolved_yaml(config);
  EXPECT_TRUE(yaml.starts_with("# lathe-train pairs --config THIS_FILE repeats this run.\n")) << yaml;
  EXPECT_NE(yaml.find("# Optimisation\nbeta: 0.5\nlearning_rate: 1e-06\n"), std::string::npos) << yaml;
  PairConfig other = config;
  other.beta = 0.25;
  EXPECT_NE(result_settings(config), result_settings(other));
}

TEST(RunConfig, AnAdaptersSettingsArePeftsConfiguration) {
  NamedValues values = complete();
  for (const auto& [name, value] : NamedValues{{"use_dora", "true"},
                                               {"lora_target_modules", "q_proj, v_proj"},
                                               {"lora_target_parameters", "mlp.experts.down_proj"},
                                               {"exclude_modules", "layers.0.self_attn.q_proj"},
                                               {"layers_to_transform", "0, 3"},
                                               {"layers_pattern", "layers h"},
                                               {"init_lora_weights", "gaussian"},
                                               {"rank_pattern", R"({"v_proj": 4, "^model.layers.1": 2.0})"},
                                               {"alpha_pattern", R"({"v_proj": 0.5})"},
                                               {"lora_modules_to_save", "lm_head embed_tokens"}})
    values.emplace_back(name, value);
  const nn::LoraConfig lora = lora_config(make_config<PairConfig>(values));
  EXPECT_TRUE(lora.use_dora);
  EXPECT_EQ(lora.target_modules, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(lora.target_parameters, (std::vector<std::string>{"mlp.experts.down_proj"}));
  EXPECT_EQ(lora.exclude_modules, (std::vector<std::string>{"layers.0.self_attn.q_proj"}));
  EXPECT_EQ(lora.layers_to_transform, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(lora.layers_pattern, (std::vector<std::string>{"layers", "h"}));
  EXPECT_EQ(lora.init_lora_weights, "gaussian");
  EXPECT_EQ(lora.rank_pattern, (std::vector<std::pair<std::string, int64_t>>{{"v_proj", 4}, {"^model.layers.1", 2}}));
  EXPECT_EQ(lora.alpha_pattern, (std::vector<std::pair<std::string, double>>{{"v_proj", 0.5}}));
  EXPECT_EQ(lora.modules_to_save, (std::vector<std::string>{"lm_head", "model.embed_tokens"}));
  values.emplace_back("exclude_modules", R"(.*\.[kv]_proj)");
  EXPECT_EQ(lora_config(make_config<PairConfig>(values)).exclude_modules_regex, R"(.*\.[kv]_proj)");
}

TEST(RunConfig, AnAdaptersSettingsThatCannotBeAreNamed) {
  const auto complaint = [](const std::string& name, const std::string& value) {
    NamedValues values = complete();
    values.emplace_back(name, value);
    PairConfig config;
    Complaints wrong;
    set_fields(fields_of(config), values, PairConfig::method, wrong);
    check_adapter(config, wrong);
    check_run(config, wrong);
    try {
      wrong.raise();
    } catch (const ConfigError& error) {
      return error.key();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(complaint("layers_to_transform", "1"), "layers_to_transform");  // beside all-linear
  EXPECT_EQ(complaint("layers_to_transform", "1,two"), "layers_to_transform");
  EXPECT_EQ(complaint("lora_modules_to_save", "norm"), "lora_modules_to_save");
  EXPECT_EQ(complaint("lora_modules_to_save", "lm_head"), "accepted");
  EXPECT_EQ(complaint("layers_pattern", "layers"), "layers_pattern");  // without layers_to_transform
  for (const char* patterns : {"q_proj", "[1]", R"({"q_proj": 0})", R"({"q_proj": 2.5})", R"({"q_proj": "8"})"})
    EXPECT_EQ(complaint("rank_pattern", patterns), "rank_pattern") << patterns;
  EXPECT_EQ(complaint("alpha_pattern", R"({"q_proj": null})"), "alpha_pattern");
  EXPECT_EQ(complaint("alpha_pattern", R"({"q_proj": 2.5})"), "accepted");
  EXPECT_EQ(complaint("init_lora_weights", "loftq"), "init_lora_weights");
  EXPECT_EQ(complaint("init_lora_weights", "pissa_niter_4"), "accepted");
}

TEST(RunConfig, WhatOneCallDoesIsLeftOpenInTheFile) {
  PairConfig config = make_config<PairConfig>(complete());
  const std::string yaml = resolved_yaml(config);
  config.resume = config.dry_run = true;
  config.resume_from_checkpoint = "there";
  EXPECT_EQ(resolved_yaml(config), yaml);
}

TEST(RunConfig, WeightsInCodesImplyCheckpointedLayersUnlessSaidOtherwise) {
  for (const char* flag : {"load_in_4bit", "load_in_8bit"}) {
    NamedValues values = complete();
    EXPECT_FALSE(resolved(make_config<PairConfig>(values)).checkpoints_layers());
    values.emplace_back(flag, "true");
    EXPECT_TRUE(resolved(make_config<PairConfig>(values)).checkpoints_layers());
    values.emplace_back("gradient_checkpointing", "false");
    EXPECT_FALSE(resolved(make_config<PairConfig>(values)).checkpoints_layers());
  }
}

TEST(RunConfig, WhatCodesCannotBeIsRefusedWhateverTheMethod) {
  const auto complaint = [](NamedValues more) {
    NamedValues values = complete();
    values.insert(values.end(), more.begin(), more.end());
    try {
      make_config<PairConfig>(values);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_NE(complaint({{"load_in_4bit", "true"}, {"load_in_8bit", "true"}}).find("not both"), std::string::npos);
  EXPECT_NE(complaint({{"load_in_8bit", "true"}, {"use_peft", "false"}}).find("codes are not trained"),
            std::string::npos);
  EXPECT_NE(complaint({{"load_in_4bit", "true"}, {"init_lora_weights", "pissa"}}).find("weights as they are"),
            std::string::npos);
  EXPECT_NE(complaint({{"load_in_4bit", "true"}, {"bnb_4bit_quant_type", "fp4"}}).find("'fp4' is not supported"),
            std::string::npos);
  EXPECT_NE(complaint({{"fp16", "true"}, {"bf16", "true"}}).find("give fp16 or bf16"), std::string::npos);
  EXPECT_NE(complaint({{"fp16", "true"}, {"dtype", "float32"}}).find("give fp16 or dtype"), std::string::npos);
  EXPECT_EQ(complaint({{"fp16", "true"}, {"bf16", "false"}}), "nothing");
  EXPECT_EQ(complaint({{"fp16", "false"}, {"bf16", "true"}}), "nothing");
  EXPECT_NE(complaint({{"bnb_4bit_use_double_quant", "true"}}).find("no use without load_in_4bit"), std::string::npos);
  EXPECT_EQ(complaint({{"load_in_4bit", "true"}, {"bnb_4bit_use_double_quant", "true"}}), "nothing");
}

TEST(RunConfig, AnotherMethodsSettingIsRefusedByName) {
  NamedValues values = complete();
  values.emplace_back("packing", "true");
  try {
    make_config<PairConfig>(values);
    FAIL() << "packing was taken";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "packing: is no setting of pairs");
  }
}

}  // namespace
}  // namespace lathe::train
