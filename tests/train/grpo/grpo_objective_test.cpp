// A GRPO run: what is sampled is what is trained, to the bit; what must not change a bit; what a stop leaves; and that
// it learns.
#include "train/grpo/grpo_objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/thread_pool.h"
#include "tests/train/grpo/tiny_grpo.h"
#include "train/run_files.h"

namespace lathe::train {
namespace {

namespace fs = std::filesystem;

struct Variant {
  Device device;
  const char* dtype;
};

class OnPolicy : public testing::TestWithParam<Variant> {
 protected:
  // Every draw of a run whose adapter changes between them.
  void expect_sampled_is_trained(const std::function<void(GrpoConfig&)>& change) {
    const TemporaryFolder folder;
    GrpoConfig config = tiny_grpo_config(folder.path());
    config.dtype = GetParam().dtype;
    config.max_steps = 3;
    if (GetParam().device.kind != DeviceKind::cpu) {  // emulated: each token costs a hundred times as much
      config.max_steps = 2;
      config.per_device_train_batch_size = 4;
      config.max_completion_length = 6;
    }
    change(config);
    TinyGrpo run(config, even_share, random_prompts(7, 1), GetParam().device);
    bool truncated = false, ended = false, moved = false;
    for (const StepRecord& record : run.train()) {
      EXPECT_EQ(metric_of(record.metrics, "sampling/sampling_logp_difference/mean"), 0);
      EXPECT_EQ(metric_of(record.metrics, "sampling/sampling_logp_difference/max"), 0);
      EXPECT_EQ(metric_of(record.metrics, "sampling/importance_sampling_ratio/min"), 1);
      EXPECT_EQ(metric_of(record.metrics, "sampling/importance_sampling_ratio/max"), 1);
      truncated |= metric_of(record.metrics, "completions/clipped_ratio") > 0;
      ended |= metric_of(record.metrics, "completions/clipped_ratio") < 1;
      moved |= record.grad_norm > 0;
    }
    EXPECT_TRUE(truncated && ended && moved) << "the run shows too little";
  }
};
std::string variant_name(const testing::TestParamInfo<Variant>& info) {
  return std::string(info.param.device.kind == DeviceKind::cpu ? "cpu_" : "simt_") + info.param.dtype;
}
INSTANTIATE_TEST_SUITE_P(Variants, OnPolicy,
                         testing::Values(Variant{{}, "float32"}, Variant{{}, "bfloat16"}, Variant{{}, "float16"},
                                         Variant{{DeviceKind::simt}, "float32"},
                                         Variant{{DeviceKind::simt}, "bfloat16"},
                                         Variant{{DeviceKind::simt}, "float16"}),
                         variant_name);

// What is drawn otherwise is computed by the same kernels: one dtype shows it where each token is emulated.
class OnPolicyOtherwise : public OnPolicy {};
INSTANTIATE_TEST_SUITE_P(Variants, OnPolicyOtherwise,
                         testing::Values(Variant{{}, "float32"}, Variant{{}, "bfloat16"}, Variant{{}, "float16"},
                                         Variant{{DeviceKind::simt}, "bfloat16"}),
                         variant_name);

TEST_P(OnPolicy, TheSamplersLogprobsAreTheTrainers) {
  expect_sampled_is_trained([](GrpoConfig&) {});
}
TEST_P(OnPolicyOtherwise, AtAnotherTemperatureToo) {
  expect_sampled_is_trained([](GrpoConfig& config) { config.temperature = 0.7; });
}
TEST_P(OnPolicyOtherwise, AndWhereLikelyTokensAloneAreDrawn) {
  expect_sampled_is_trained([](GrpoConfig& config) {
    config.temperature = 1.3;
    config.top_k = 50;
    config.top_p = 0.9;
    config.min_p = 0.01;
  });
}
TEST_P(OnPolicy, AndWithoutAnAdapter) {
  expect_sampled_is_trained([](GrpoConfig& config) {
    config.use_peft = false;
    config.learning_rate = 1e-3;
  });
}

TEST_P(OnPolicy, AndBesideLinearsInCodes) {
  expect_sampled_is_trained([](GrpoConfig& config) {
    config.load_in_4bit = true;
    config.bnb_4bit_use_double_quant = true;
  });
  expect_sampled_is_trained([](GrpoConfig& config) { config.load_in_8bit = true; });
}

struct Result {
  std::string metrics, parameters;
  bool operator==(const Result&) const = default;
};

Result result_of(const std::function<void(GrpoConfig&)>& change) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.beta = 0.05;
  config.num_iterations = 2;
  config.max_steps = 6;
  config.loss_type = "bnpo";
  change(config);
  TinyGrpo run(config);
  run.train();
  return {bytes_of(folder.path() / "metrics.jsonl"), run.parameter_bytes()};
}

class GrpoSameBits : public testing::TestWithParam<const char*> {
 protected:
  Result changed(const std::function<void(GrpoConfig&)>& change) {
    return result_of([&](GrpoConfig& config) {
      config.dtype = GetParam();
      change(config);
    });
  }
  Result plain() {
    return changed([](GrpoConfig&) {});
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, GrpoSameBits, testing::Values("float32", "bfloat16", "float16"));

TEST_P(GrpoSameBits, AccumulatingOneCompletionEightTimesIsABatchOfEight) {
  EXPECT_EQ(plain(), changed([](GrpoConfig& config) {
              config.per_device_train_batch_size = 1;
              config.gradient_accumulation_steps = 8;
            }));
}
TEST_P(GrpoSameBits, EntropiesAreThoseOfAStepHoweverItIsCut) {
  const auto with = [&](int64_t batch, int64_t accumulation, double coefficient) {
    return changed([=](GrpoConfig& config) {
      config.entropy_coef = coefficient;
      config.top_entropy_quantile = 0.4;
      config.off_policy_mask_threshold = 0.05;
      config.per_device_train_batch_size = batch;
      config.gradient_accumulation_steps = accumulation;
    });
  };
  const Result whole = with(8, 1, 0.01);
  EXPECT_EQ(whole, with(1, 8, 0.01));
  EXPECT_NE(whole, with(8, 1, 0));
  EXPECT_NE(whole, plain());
}
TEST_P(GrpoSameBits, CuttingForwardsAndRecomputingLayersChangeNothing) {
  EXPECT_EQ(plain(), changed([](GrpoConfig& config) {
              config.max_tokens_per_forward = 40;
              config.gradient_checkpointing = true;
            }));
}
TEST_P(GrpoSameBits, ASmallCacheForTheRolloutsChangesNothing) {
  EXPECT_EQ(plain(), changed([](GrpoConfig& config) { config.kv_cache_tokens = 48; }));
}
TEST_P(GrpoSameBits, TwoThreadsGiveWhatOneGives) {
  const int before = thread_count();
  set_thread_count(1);
  const Result one = plain();
  set_thread_count(2);
  const Result two = plain();
  set_thread_count(before);
  EXPECT_EQ(one, two);
}

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != "timings.jsonl")
      files[entry.path().lexically_relative(folder).string()] = bytes_of(entry.path());
  return files;
}

// The names of the files that differ.
std::vector<std::string> differing(const std::map<std::string, std::string>& a,
                                   const std::map<std::string, std::string>& b) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : a)
    if (!b.contains(name) || b.at(name) != bytes) names.push_back(name);
  for (const auto& [name, bytes] : b)
    if (!a.contains(name)) names.push_back(name);
  return names;
}

// A generation batch of 16 completions, which two steps share and learn from twice: draws begin at steps 1 and 5.
GrpoConfig held_config(const fs::path& folder) {
  GrpoConfig config = tiny_grpo_config(folder);
  config.generation_batch_size = 16;
  config.num_iterations = 2;
  config.max_steps = 7;
  config.save_steps = 1;
  config.logging_steps = 3;
  config.beta = 0.05;
  config.log_completions = true;
  return config;
}

TEST(GrpoState, StoppedAfterAnyStepARunEndsInTheSameBytes) {
  const TemporaryFolder straight;
  TinyGrpo(held_config(straight.path())).train();
  const auto whole = files_of(straight.path());
  ASSERT_TRUE(whole.contains("checkpoint-5/objective/generation_batch.json"));
  ASSERT_TRUE(whole.contains("completions/completions_00005.jsonl"));
  for (int64_t stop = 1; stop < 7; ++stop) {
    const TemporaryFolder folder;
    TinyGrpo(held_config(folder.path())).train(stop);
    GrpoConfig config = held_config(folder.path());
    config.resume = true;
    TinyGrpo(config).train();
    EXPECT_EQ(differing(files_of(folder.path()), whole), std::vector<std::string>()) << "stopped after step " << stop;
  }
}

TEST(GrpoState, ARewardThatFailsLeavesTheStepsBeforeItAndTheyGoOn) {
  const TemporaryFolder straight, folder;
  TinyGrpo(held_config(straight.path())).train();
  int calls = 0;
  TinyGrpo failing(held_config(folder.path()), [&](std::span<const ScoredCompletion> completions) {
    if (++calls == 2) throw Error(where_of(*completions[0].row) + ": no judge today");
    return even_share(completions);
  });
  failing.train(4);
  try {
    failing.train();
    FAIL() << "the reward's error must stop the run";
  } catch (const StepAbandoned& error) {
    EXPECT_NE(std::string(error.what()).find("prompts.jsonl, line "), std::string::npos) << error.what();
  }
  EXPECT_EQ(failing.trainer->steps_done(), 4);
  failing.trainer->save();
  failing.trainer.reset();
  GrpoConfig config = held_config(folder.path());
  config.resume = true;
  TinyGrpo(config).train();
  EXPECT_EQ(differing(files_of(folder.path()), files_of(straight.path())), std::vector<std::string>());
}

TEST(GrpoState, ABatchThatDoesNotFitIsRefusedByItsKey) {
  const TemporaryFolder folder;
  GenerationBatch batch{.draw = 3,
                        .completions = {{.row = 2,
                                         .rollout = {.ids = {7, 8}, .logprobs = {-0.1f, -2.5f}, .truncated = true},
                                         .ref_logprobs = {},
                                         .advantage = -0.7}}};
  save_generation_batch(folder.path(), batch);
  const GenerationBatch again = load_generation_batch(folder.path(), 3, 320);
  EXPECT_EQ(again.draw, 3);
  EXPECT_EQ(again.completions[0].rollout.logprobs, batch.completions[0].rollout.logprobs);
  EXPECT_EQ(again.completions[0].advantage, -0.7);
  EXPECT_THROW(load_generation_batch(folder.path(), 2, 320), FormatError) << "a row that is not there";
  EXPECT_THROW(load_generation_batch(folder.path(), 3, 8), FormatError) << "a token that is not there";
  batch.completions[0].rollout.logprobs.pop_back();
  save_generation_batch(folder.path(), batch);
  EXPECT_THROW(load_generation_batch(folder.path(), 3, 320), FormatError);
}

TEST(Grpo, TheRewardRises) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.per_device_train_batch_size = 64;
  config.num_generations = 8;
  config.max_steps = 60;
  config.learning_rate = 5e-3;
  TinyGrpo run(config);
  const auto records = run.train();
  const auto mean_reward = [&](size_t first, size_t last) {
    double sum = 0;
    for (size_t i = first; i < last; ++i) sum += metric_of(records[i].metrics, "reward");
    return sum / static_cast<double>(last - first);
  };
  EXPECT_GT(mean_reward(55, 60), mean_reward(0, 5) + 0.1);
}

TEST(Grpo, ANewAdaptersReferenceIsTheModelWithoutIt) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.beta = 0.1;
  TinyGrpo run(config);
  const auto records = run.train();
  EXPECT_EQ(metric_of(records[0].metrics, "kl"), 0) << "it has no effect yet";
  EXPECT_GT(metric_of(records[3].metrics, "kl"), 0);
}

TEST(Grpo, ATrainedAdaptersReferenceIsACopyOfItAndIsNotSaved) {
  const TemporaryFolder first, second;
  TinyGrpo trained(tiny_grpo_config(first.path()));
  trained.train();
  write_result(first.path(), *trained.model, trained.trainer->optimizer(), trained.config.model);
  GrpoConfig config = tiny_grpo_config(second.path());
  config.adapter = first.path().string();
  config.beta = 0.1;
  TinyGrpo run(config);
  const auto records = run.train();
  EXPECT_EQ(metric_of(records[0].metrics, "kl"), 0);
  EXPECT_GT(metric_of(records[3].metrics, "kl"), 0);
  for (const StepRecord& record : records)
    EXPECT_EQ(metric_of(record.metrics, "sampling/sampling_logp_difference/max"), 0);
  write_result(second.path(), *run.model, run.trainer->optimizer(), run.config.model);
  EXPECT_NE(bytes_of(first.path() / "adapter_model.safetensors"),
            bytes_of(second.path() / "adapter_model.safetensors"));
}

// The first update's KL divergence is 0 to the bit; then it grows.
TEST(Grpo, TheReferenceOfWholeWeightsIsAModelOfItsOwn) {
  for (const bool whole_model : {true, false})
    for (const char* dtype : {"float32", "bfloat16"}) {
      const TemporaryFolder folder;
      GrpoConfig config = tiny_grpo_config(folder.path());
      config.dtype = dtype;
      config.beta = 0.05;
      config.learning_rate = 2e-3;
      config.use_peft = !whole_model;
      if (!whole_model) config.lora_modules_to_save = "lm_head";
      TinyGrpo run(config);
      const std::vector<StepRecord> records = run.train();
      EXPECT_EQ(metric_of(records[0].metrics, "kl"), 0.0);
      EXPECT_GT(metric_of(records[2].metrics, "kl"), 0.0);
    }
}

TEST(Grpo, AReferenceThatFollowsIsKeptInCheckpoints) {
  const TemporaryFolder whole_folder, folder, fixed_folder;
  GrpoConfig config = tiny_grpo_config(whole_folder.path());
  config.beta = 0.05;
  config.use_peft = false;
  config.learning_rate = 2e-3;
  config.sync_ref_model = true;
  config.ref_model_sync_steps = 1;
  TinyGrpo whole(config);
  whole.train();
  config.output_dir = folder.path().string();
  config.save_steps = 2;
  TinyGrpo(config).train(2);
  config.resume = true;
  TinyGrpo resumed(config);
  resumed.train();
  EXPECT_EQ(whole.parameter_bytes(), resumed.parameter_bytes());
  EXPECT_EQ(bytes_of(whole_folder.path() / "metrics.jsonl"), bytes_of(folder.path() / "metrics.jsonl"));
  config.output_dir = fixed_folder.path().string();
  config.resume = config.sync_ref_model = false;
  TinyGrpo fixed(config);
  fixed.train();
  EXPECT_NE(whole.parameter_bytes(), fixed.parameter_bytes());
}

// The completions of the first draw's groups, where it has these rows.
std::vector<std::string> groups_of(const std::vector<int64_t>& rows) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.generation_batch_size = std::ssize(rows) * config.num_generations;
  std::vector<std::string> groups(rows.size());
  TinyGrpo run(config, [&](std::span<const ScoredCompletion> completions) {
    for (size_t i = 0; i < completions.size(); ++i)
      for (const int32_t id : completions[i].ids) groups[i / 4] += std::to_string(id) + " ";
    return even_share(completions);
  });
  run.objective->accumulate(rows, 0, 1.0).outcome();
  return groups;
}

// A mixture draws the rows of a small source more than once. Which of them a completion is of is all that counts.
TEST(Grpo, ARowThatIsDrawnTwiceIsAnsweredAnew) {
  const std::vector<std::string> several = groups_of({3, 5, 3, 3}), two = groups_of({5, 3}), again = groups_of({3, 3});
  ASSERT_EQ(several.size(), 4u);
  EXPECT_EQ(std::set<std::string>(several.begin(), several.end()).size(), 4u) << "each of them its own";
  EXPECT_EQ(two, (std::vector<std::string>{several[1], several[0]}));
  EXPECT_EQ(again, (std::vector<std::string>{several[0], several[2]}));
}

TEST(Grpo, EqualRewardsAreCountedAndTeachNothing) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.max_steps = 1;
  TinyGrpo run(config, [](std::span<const ScoredCompletion> completions) { return Rewards(completions.size(), 0.25); });
  const StepRecord record = run.train()[0];
  EXPECT_EQ(metric_of(record.metrics, "frac_reward_zero_std"), 1);
  EXPECT_EQ(record.loss, 0);
  EXPECT_EQ(record.grad_norm, 0);
}

TEST(Grpo, MaskedCompletionsAreNotLearntFrom) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  config.max_steps = 1;
  config.max_completion_length = 1;
  config.mask_truncated_completions = true;
  // Half of the vocabulary ends a completion: the others are cut. With a reward for ending alone, those that are left
  // are all alike but for their advantage, which is above 0.
  TinyGrpo run(config, [](std::span<const ScoredCompletion> completions) {
    Rewards rewards;
    for (const ScoredCompletion& completion : completions) rewards.emplace_back(completion.truncated ? 0.0 : 1.0);
    return rewards;
  });
  const StepRecord record = run.train()[0];
  EXPECT_GT(metric_of(record.metrics, "completions/clipped_ratio"), 0);
  const double clipped = metric_of(record.metrics, "completions/clipped_ratio");
  if (clipped < 1) {
    EXPECT_LT(record.loss, 0) << "the mean of minus advantages above 0";
  } else {
    EXPECT_EQ(record.grad_norm, 0);
  }
}

TEST(Grpo, ARewardThatIsNoNumberNamesItsRow) {
  const TemporaryFolder folder;
  TinyGrpo run(tiny_grpo_config(folder.path()), [](std::span<const ScoredCompletion> completions) {
    Rewards rewards = even_share(completions);
    rewards[5] = std::nan("");
    return rewards;
  });
  try {
    run.train();
    FAIL() << "NaN cannot be learnt from";
  } catch (const StepAbandoned& error) {
    EXPECT_NE(std::string(error.what()).find("prompts.jsonl, line "), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("the reward even is nan"), std::string::npos) << error.what();
  }
}

std::string complaints_of(const NamedValues& values) {
  NamedValues all = {{"model", "m"}, {"dataset", "d"}, {"output_dir", "o"}, {"reward_funcs", "number"}};
  all.insert(all.end(), values.begin(), values.end());
  try {
    make_config<GrpoConfig>(all);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "none";
}

TEST(GrpoConfig, SettingsThatDoNotGoTogetherAreNamed) {
  EXPECT_EQ(complaints_of({}), "none");
  for (const auto& [setting, value, named] : {std::tuple("loss_type", "ppo", "none of grpo, bnpo"),
                                              {"num_generations", "1", "at least 2"},
                                              {"generation_batch_size", "12", "whole groups of num_generations 8"},
                                              {"generation_batch_size", "24", "none"},
                                              {"per_device_train_batch_size", "4", "whole groups"},
                                              {"reward_weights", "1,2", "expected 1 numbers"},
                                              {"reward_funcs", "nice", "'nice' is none of exact_answer"},
                                              {"temperature", "0", "temperature"},
                                              {"delta", "1.1", "above 1 + epsilon_high"},
                                              {"scale_rewards", "all", "none of group"},
                                              {"multi_objective_aggregation", "sum", "neither sum_then_normalize"},
                                              {"top_entropy_quantile", "1.5", "from 0 to 1"},
                                              {"entropy_coef", "nan", "must be a number"},
                                              {"reward_regex", "a", "goes with the reward regex"}}) {
    const std::string complaint = complaints_of({{setting, value}});
    EXPECT_NE(complaint.find(named), std::string::npos) << setting << ": " << complaint;
  }
  EXPECT_EQ(complaints_of({{"beta", "0.1"}, {"use_peft", "false"}}), "none");
  EXPECT_EQ(complaints_of({{"beta", "0.1"}, {"use_peft", "false"}, {"sync_ref_model", "true"}}), "none");
  EXPECT_NE(complaints_of({{"use_peft", "false"}, {"sync_ref_model", "true"}}).find("beta 0"), std::string::npos);
  EXPECT_NE(complaints_of({{"beta", "0.1"}, {"sync_ref_model", "true"}}).find("use_peft false"), std::string::npos);
}

}  // namespace
}  // namespace lathe::train
