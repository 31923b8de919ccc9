#include "train/sft/sft_config.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace lathe::train {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

Settings complete() { return {{"model", "m"}, {"dataset", "d"}, {"output_dir", "o"}}; }

std::string error_of(Settings settings) {
  try {
    make_config<SftConfig>(settings);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SftConfig, DefaultsAreTrlsAndPefts) {
  const SftConfig config = make_config<SftConfig>(complete());
  EXPECT_EQ(config.per_device_train_batch_size, 8);
  EXPECT_EQ(config.num_train_epochs, 3.0);
  EXPECT_EQ(config.max_length, 1024);
  EXPECT_EQ(config.max_grad_norm, 1.0);
  EXPECT_EQ(config.adam_epsilon, 1e-8);
  EXPECT_EQ(config.weight_decay, 0.0);
  EXPECT_EQ(config.logging_steps, 10);
  EXPECT_EQ(config.lora_r, 16);
  EXPECT_EQ(config.lora_dropout, 0.05);
  EXPECT_EQ(config.resolved_learning_rate(), 2e-4);
  Settings whole = complete();
  whole.emplace_back("use_peft", "false");
  EXPECT_EQ(make_config<SftConfig>(whole).resolved_learning_rate(), 2e-5);
}

TEST(SftConfig, EveryErrorComesAtOnceWithItsKey) {
  const std::string message = error_of({{"lora_r", "many"},
                                        {"adam_beta1", "3"},
                                        {"lr_scheduler_type", "step"},
                                        {"per_device_train_batch_size", "0"},
                                        {"packing", "perhaps"},
                                        {"no_such_key", "1"}});
  for (const char* part : {"model: ", "dataset: ", "output_dir: ", "lora_r: expected a whole number, found 'many'",
                           "adam_beta1: must be in [0, 1)", "lr_scheduler_type: 'step' is none of",
                           "per_device_train_batch_size: must be at least 1", "packing: expected true or false",
                           "no_such_key: is no setting"})
    EXPECT_NE(message.find(part), std::string::npos) << part << " is not in\n" << message;
}

TEST(SftConfig, ALaterSettingWins) {
  Settings settings = complete();
  settings.emplace_back("seed", "1");
  settings.emplace_back("seed", "2");
  EXPECT_EQ(make_config<SftConfig>(settings).seed, 2);
}

TEST(SftConfig, TheResolvedYamlReadsBackAsTheSameConfig) {
  Settings settings = complete();
  for (const auto& [name, value] : Settings{{"dataset", "a path/with 'quotes'.jsonl"},
                                            {"learning_rate", "3.3e-5"},
                                            {"completion_only_loss", "false"},
                                            {"bf16", "true"},
                                            {"lora_target_modules", "q_proj,v_proj"}})
    settings.emplace_back(name, value);
  const SftConfig config = make_config<SftConfig>(settings);
  const std::string yaml = resolved_yaml(config);
  EXPECT_NE(yaml.find("learning_rate: 3.3e-05\n"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("dtype: bfloat16\n"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("dataset: 'a path/with ''quotes''.jsonl'\n"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("eval_dataset: null\n"), std::string::npos) << yaml;
}

TEST(SftConfig, TargetsAreNamesOrAnExpression) {
  Settings settings = complete();
  settings.emplace_back("lora_target_modules", "q_proj,mlp.up_proj");
  const nn::LoraConfig names = lora_config(make_config<SftConfig>(settings));
  EXPECT_EQ(names.target_modules, (std::vector<std::string>{"q_proj", "mlp.up_proj"}));
  EXPECT_FALSE(names.target_modules_regex.has_value());
  settings.emplace_back("lora_target_modules", ".*\\.(q|v)_proj");
  EXPECT_EQ(lora_config(make_config<SftConfig>(settings)).target_modules_regex, ".*\\.(q|v)_proj");
  for (const char* text : {"q_proj, v_proj", " q_proj ,v_proj ", "q_proj v_proj", "q_proj,\n v_proj,"}) {
    settings.emplace_back("lora_target_modules", text);
    const SftConfig config = make_config<SftConfig>(settings);
    EXPECT_EQ(lora_config(config).target_modules, (std::vector<std::string>{"q_proj", "v_proj"})) << text;
    EXPECT_NE(resolved_yaml(config).find("lora_target_modules: 'q_proj,v_proj'\n"), std::string::npos) << text;
  }
  settings.emplace_back("lora_target_modules", " , ");
  EXPECT_EQ(error_of(settings), "lora_target_modules: is empty");
  settings.emplace_back("lora_target_modules", "all-linear");
  EXPECT_EQ(lora_config(make_config<SftConfig>(settings)).target_modules_regex, "all-linear");
}

TEST(SftConfig, OnlyTheProductOfBatchAndAccumulationMattersOnResume) {
  SftConfig a = make_config<SftConfig>(complete()), b = a;
  b.per_device_train_batch_size = 1;
  b.gradient_accumulation_steps = 8;
  b.gradient_checkpointing = true;
  EXPECT_EQ(result_settings(a), result_settings(b));
  b.gradient_accumulation_steps = 4;
  EXPECT_NE(result_settings(a), result_settings(b));
}

}  // namespace
}  // namespace lathe::train
