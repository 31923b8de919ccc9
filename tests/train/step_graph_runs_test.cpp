// Runs of every method whose steps are replayed as graphs: the bits of steps that are queued one by one, through
// everything that a run does between them, in no more memory. On simt, whose host code is a card's.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "core/memory.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/simt/options.h"
#include "tests/support/hopper.h"
#include "tests/train/dpo/tiny_dpo.h"
#include "tests/train/grpo/tiny_grpo.h"
#include "tests/train/small_model.h"
#include "train/memory_estimate.h"
#include "train/step_graphs.h"

namespace lathe::train {
namespace {

constexpr Device simt_device{DeviceKind::simt, 0};

struct Trained {
  int64_t captured = 0, replayed = 0;
  std::string given_up, parameters, metrics;
  int64_t most_alive = 0, most_reserved = 0;
};

// Counts of graphs that the run's objective has had.
void add_counts(Trained& trained, const StepGraphs* graphs) {
  if (graphs == nullptr) return;
  trained.captured += graphs->counts().captured;
  trained.replayed += graphs->counts().replayed;
  trained.given_up += graphs->given_up();
}

// `make` makes a run of a config. With `stop_after` steps it is stopped and resumed.
template <class Config, class Make>
Trained train_run(Config config, bool graphs, const Make& make, int64_t stop_after = 0) {
  config.cuda_graphs = graphs;
  config.overwrite_output_dir = true;
  Allocator& allocator = allocator_for(simt_device);
  allocator.release_cached();
  allocator.reset_peak();
  Trained trained;
  if (stop_after > 0) {
    auto stopped = make(config);
    stopped->train(stop_after);
    add_counts(trained, stopped->graphs());
    config.overwrite_output_dir = false;
    config.resume = true;
  }
  auto run = make(config);
  run->train();
  add_counts(trained, run->graphs());
  trained.parameters = run->parameter_bytes();
  trained.metrics = bytes_of(std::filesystem::path(config.output_dir) / "metrics.jsonl");
  trained.most_alive = allocator.stats().total_peak_bytes;
  trained.most_reserved = allocator.stats().reserved_peak_bytes;
  return trained;
}

struct Expected {
  int64_t captured = 1, replayed = 1;
  int64_t stop_after = 0;
};

template <class Config, class Make>
void expect_the_same_bits(const Config& config, const Make& make, const Expected& expected) {
  const Trained queued = train_run(config, false, make), run = train_run(config, true, make, expected.stop_after);
  EXPECT_EQ(queued.captured, 0);
  EXPECT_EQ(run.given_up, "");
  EXPECT_EQ(run.captured, expected.captured);
  EXPECT_EQ(run.replayed, expected.replayed);
  EXPECT_EQ(run.metrics, queued.metrics);
  EXPECT_TRUE(run.parameters == queued.parameters) << "the weights differ";
  EXPECT_LE(run.most_reserved, queued.most_alive + largest_cache(queued.most_alive));
}

// A rate that falls from step to step, rows in another order, dropout where there is some: every number of a step
// differs. One row to a step, as each is emulated.
template <class Config>
void make_small(Config& config, int64_t steps) {
  config.model = small_model();
  config.dtype = "bfloat16";
  config.per_device_train_batch_size = 1;
  config.max_steps = steps;
  config.lora_target_modules = "q_proj,v_proj,down_proj";
}

template <class Config>
struct Kind {
  const char* name;
  std::function<void(Config&)> change = [](Config&) {};
  int sequences = 1;  // in a row
  Expected expected = {};
};
template <class Config>
std::string name_of_kind(const ::testing::TestParamInfo<Kind<Config>>& info) {
  return info.param.name;
}

// Nine steps, stopped after the fourth and resumed; evaluated in the middle, so that a graph is made three times.
template <class Config>
void disturb(Config& config) {
  config.max_steps = 9;
  config.eval_steps = 6;
  config.save_steps = 3;
}

// Whose routers choose anew in every step.
template <class Config>
void of_a_mixture(Config& config) {
  config.model = golden("tiny_qwen3_moe/all").string();
  config.lora_target_modules = "q_proj,v_proj";
}

// Whose layers convolve, but for one.
template <class Config>
void of_convolutions(Config& config) {
  config.model = golden("tiny_lfm2/bias").string();
  config.lora_target_modules = "q_proj,in_proj,out_proj";
}

// Whose layers keep states, but for one.
template <class Config>
void of_gated_delta_nets(Config& config) {
  config.model = golden("tiny_qwen3_5/text").string();
  config.lora_target_modules = "q_proj,in_proj_qkv,in_proj_a,out_proj";
}

template <class Config>
void of_mamba2(Config& config) {
  config.model = golden("tiny_granite4/hybrid").string();
  config.lora_target_modules = "q_proj,in_proj,out_proj,input_linear";
}

// Evaluated when a graph has been worth it, so that the next step is captured: what the evaluation has made of the
// parameters is to be made by every replay.
template <class Config>
void evaluate(Config& config) {
  config.max_steps = 8;
  config.eval_steps = 6;
}
constexpr Expected evaluated{.captured = 2, .replayed = 4 + 1};

struct SftRun : TinyRun {
  using TinyRun::TinyRun;
  const StepGraphs* graphs() const { return dynamic_cast<const SftObjective&>(*objective).graphs(); }
};

class SftGraphs : public ::testing::TestWithParam<Kind<SftConfig>> {};
INSTANTIATE_TEST_SUITE_P(
    Kinds, SftGraphs,
    ::testing::Values(
        Kind<SftConfig>{
            "disturbed", [](SftConfig& c) { disturb(c); }, 1, {.captured = 3, .replayed = 2 + 1 + 1, .stop_after = 4}},
        Kind<SftConfig>{"joined_evaluated", [](SftConfig& c) { evaluate(c), c.init_lora_weights = "olora"; }, 1,
                        evaluated},
        Kind<SftConfig>{"dora_evaluated", [](SftConfig& c) { evaluate(c), c.use_dora = true; }, 1, evaluated},
        Kind<SftConfig>{"f16_without_dropout", [](SftConfig& c) { c.dtype = "float16", c.lora_dropout = 0; }},
        Kind<SftConfig>{"qlora_accumulated_checkpointed",
                        [](SftConfig& c) {
                          c.load_in_4bit = true, c.gradient_checkpointing = true;
                          c.gradient_accumulation_steps = 2;
                        }},
        Kind<SftConfig>{"a_mixture_accumulated_checkpointed",
                        [](SftConfig& c) {
                          of_a_mixture(c), c.gradient_checkpointing = true;
                          c.gradient_accumulation_steps = 2;
                        }},
        Kind<SftConfig>{"convolutions_packed_checkpointed",
                        [](SftConfig& c) { of_convolutions(c), c.gradient_checkpointing = true; }, 2},
        Kind<SftConfig>{"convolutions_every_weight_packed_accumulated",
                        [](SftConfig& c) {
                          of_convolutions(c), c.use_peft = false;
                          c.gradient_accumulation_steps = 2;
                        },
                        2},
        Kind<SftConfig>{"gated_delta_nets_packed_checkpointed",
                        [](SftConfig& c) { of_gated_delta_nets(c), c.gradient_checkpointing = true; }, 2},
        Kind<SftConfig>{"gated_delta_nets_every_weight_packed_accumulated",
                        [](SftConfig& c) {
                          of_gated_delta_nets(c), c.use_peft = false;
                          c.gradient_accumulation_steps = 2;
                        },
                        2},
        Kind<SftConfig>{"mamba2_packed_checkpointed",
                        [](SftConfig& c) { of_mamba2(c), c.gradient_checkpointing = true; }, 2},
        Kind<SftConfig>{"mamba2_every_weight_packed_accumulated",
                        [](SftConfig& c) {
                          of_mamba2(c), c.use_peft = false;
                          c.gradient_accumulation_steps = 2;
                        },
                        2},
        Kind<SftConfig>{"qdora_f16_without_dropout_accumulated_checkpointed",
                        [](SftConfig& c) {
                          c.use_dora = true, c.dtype = "float16", c.lora_dropout = 0;
                          c.load_in_4bit = true, c.gradient_checkpointing = true;
                          c.gradient_accumulation_steps = 2;
                        }},
        Kind<SftConfig>{"packed_f32", [](SftConfig& c) { c.dtype = "float32"; }, 2},
        Kind<SftConfig>{"embeddings_lora_and_a_whole_head",
                        [](SftConfig& c) {
                          c.lora_target_modules = "q_proj,embed_tokens";
                          c.lora_modules_to_save = "lm_head";
                        }},
        Kind<SftConfig>{"a_whole_embedding", [](SftConfig& c) { c.lora_modules_to_save = "embed_tokens"; }},
        Kind<SftConfig>{"every_weight_packed_accumulated",
                        [](SftConfig& c) { c.use_peft = false, c.gradient_accumulation_steps = 2; }, 2},
        Kind<SftConfig>{"every_weight_tied_f32",
                        [](SftConfig& c) {
                          c.use_peft = false, c.dtype = "float32";
                          c.model = small_model(Output::tied);
                        }}),
    name_of_kind<SftConfig>);

void expect_the_same_bits(const Kind<SftConfig>& kind, nn::StoredBlockUse blocks = nn::StoredBlockUse::widen) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  make_small(config, 3);
  config.lora_dropout = 0.2;
  kind.change(config);
  const TrainingSet evaluation = equal_rows(2, 1, 5);
  expect_the_same_bits(
      config,
      [&](const SftConfig& given) {
        return std::make_unique<SftRun>(
            given, equal_rows(12, kind.sequences),
            [&](nn::Transformer& model, const TrainingSet& training, const SftConfig& of_run) {
              return std::make_unique<SftObjective>(model, training, &evaluation, of_run);
            },
            nn::TransformerOptions{
                .quantized_linears = given.quantization(), .stored_blocks = blocks, .device = simt_device});
      },
      kind.expected);
}

TEST_P(SftGraphs, GiveTheBitsOfStepsThatAreQueued) { expect_the_same_bits(GetParam()); }

struct KernelNames final : kernels::QueuedWorkListener {
  std::set<std::string> all;
  void queued(const char* name, int64_t) override { all.insert(name); }
};

// Whose experts' products find their weights by tensor maps in device memory.
TEST(StepGraphs, OfAMixtureOnACardOfSm90GiveTheBitsOfStepsThatAreQueued) {
  const lathe::testing::Hopper hopper;
  const KernelNames names;
  expect_the_same_bits(Kind<SftConfig>{"a_mixture_by_wgmma", [](SftConfig& config) {
                                         of_a_mixture(config);
                                         config.model = golden("tiny_mixtral").string();
                                       }});
  EXPECT_TRUE(names.all.contains("grouped_gated_warpgroup") && names.all.contains("grouped_warpgroup"));
}

// Whose experts stay in MXFP4, and are dequantised in every step: by either kind of card.
TEST(StepGraphs, OfAMixtureInBlocksGiveTheBitsOfStepsThatAreQueued) {
  const Kind<SftConfig> kind{"a_mixture_in_blocks", [](SftConfig& config) {
                               of_a_mixture(config);
                               config.model = golden("tiny_gpt_oss/mxfp4").string();
                             }};
  expect_the_same_bits(kind, nn::StoredBlockUse::keep);
  const lathe::testing::Hopper hopper;
  const KernelNames names;
  expect_the_same_bits(kind, nn::StoredBlockUse::keep);
  EXPECT_TRUE(names.all.contains("ggml_table_rows") && names.all.contains("grouped_gated_warpgroup"));
}

// Of what is made of parameters when they change, what a capture would have made has not been.
TEST(StepGraphs, AStepThatCannotBeCapturedHasTheBitsOfOneThatNeedNot) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  make_small(config, 3);
  config.overwrite_output_dir = true;
  const auto trained = [&](bool graphs) {
    config.cuda_graphs = graphs;
    SftRun run(config, equal_rows(3), {}, {.device = simt_device});
    run.train(1);
    if (graphs) simt::fail_nth(simt::Call::capture, 2);
    run.train();
    simt::fail_nth(simt::Call::capture, 0);
    if (graphs) {
      EXPECT_NE(run.graphs()->given_up().find("making a graph"), std::string::npos) << run.graphs()->given_up();
    }
    return run.parameter_bytes();
  };
  for (const bool use_dora : {true, false}) {
    config.use_dora = use_dora;
    config.init_lora_weights = use_dora ? "true" : "olora";
    EXPECT_TRUE(trained(true) == trained(false)) << config.init_lora_weights;
  }
}

TEST(StepGraphs, AreNotForWhatTheHostComputes) {
  const TemporaryFolder folder;
  SftConfig config = tiny_config(folder.path());
  make_small(config, 3);
  const auto expect_none = [&](const char* why) {
    const SftRun run(config, equal_rows(3), {}, {.device = simt_device});
    EXPECT_EQ(run.graphs(), nullptr) << why;
  };
  of_a_mixture(config);
  config.dtype = "float32";
  expect_none("experts in f32");
  config.dtype = "bfloat16";
  config.lora_dropout = 0;
  config.lora_target_parameters = "mlp.experts.down_proj";
  expect_none("experts that are adapted");
  config.lora_target_parameters = "";
  config.use_peft = false;
  expect_none("experts that train");
  config.use_peft = true;
  const SftRun run(config, equal_rows(3), {}, {.device = simt_device});
  EXPECT_NE(run.graphs(), nullptr) << "frozen ones";
}

// Prompts of two or three tokens, completions of three and two.
TrainingSet equal_pairs(int64_t rows) {
  TrainingSet pairs;
  RandomStream random(6, RandomPurpose::test);
  const auto ids = [&](int count) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random.below(small_vocabulary)));
    return tokens;
  };
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<int32_t> prompt = ids(3);
    std::vector<int32_t> chosen = ids(3), rejected = ids(2);
    if (rejected[0] == chosen[0]) rejected[0] = (rejected[0] + 1) % small_vocabulary;
    add_pair(pairs, prompt, chosen, rejected);
  }
  return pairs;
}

struct DpoRun {
  DpoConfig config;
  DpoData data;
  nn::ModelFiles files;
  std::unique_ptr<nn::Transformer> model;
  std::unique_ptr<DpoObjective> objective;
  std::unique_ptr<Trainer> trainer;

  explicit DpoRun(const DpoConfig& given) : config(resolved(given)) {
    data.training = equal_pairs(12);
    data.evaluation = equal_pairs(2);
    files = nn::open_model_files(config.model);
    model = tiny_model(config, files, config.adapter, {.device = simt_device});
    objective = std::make_unique<DpoObjective>(*model, config, data, model_fingerprint(*files.weights));
  }
  std::vector<StepRecord> train(int64_t steps = INT64_MAX) { return train_steps(*this, steps); }
  std::string parameter_bytes() const { return parameter_bytes_of(*model); }
  const StepGraphs* graphs() const { return objective->graphs(); }
};

class DpoGraphs : public ::testing::TestWithParam<Kind<DpoConfig>> {};
INSTANTIATE_TEST_SUITE_P(
    Kinds, DpoGraphs,
    ::testing::Values(
        // The references of a row are a part of the step in which it first comes; another epoch has another shape.
        Kind<DpoConfig>{
            "disturbed", [](DpoConfig& c) { disturb(c); }, 1, {.captured = 3, .replayed = 2 + 1 + 1, .stop_after = 4}},
        Kind<DpoConfig>{"precomputed_f16_accumulated",
                        [](DpoConfig& c) {
                          c.dtype = "float16", c.precompute_ref_log_probs = true;
                          c.gradient_accumulation_steps = 2;
                        }},
        Kind<DpoConfig>{"sorted_with_dropout_by_length",
                        [](DpoConfig& c) {
                          c.loss_type = "aot", c.ld_alpha = 0.5;
                          c.lora_dropout = 0.2, c.disable_dropout = false;
                          c.gradient_accumulation_steps = 2;
                        }},
        Kind<DpoConfig>{"a_mixture", [](DpoConfig& c) { of_a_mixture(c); }},
        Kind<DpoConfig>{"convolutions", [](DpoConfig& c) { of_convolutions(c); }},
        Kind<DpoConfig>{"gated_delta_nets", [](DpoConfig& c) { of_gated_delta_nets(c); }},
        Kind<DpoConfig>{"mamba2", [](DpoConfig& c) { of_mamba2(c); }},
        Kind<DpoConfig>{"dora_with_dropout",
                        [](DpoConfig& c) { c.use_dora = true, c.lora_dropout = 0.2, c.disable_dropout = false; }},
        Kind<DpoConfig>{"every_weight_weighted", [](DpoConfig& c) { c.use_peft = false, c.use_weighting = true; }},
        Kind<DpoConfig>{"every_weight_with_a_reference_that_follows",
                        [](DpoConfig& c) {
                          c.use_peft = false, c.sync_ref_model = true, c.ref_model_sync_steps = 1;
                          c.model = small_model(Output::tied);
                        }}),
    name_of_kind<DpoConfig>);

TEST_P(DpoGraphs, GiveTheBitsOfStepsThatAreQueued) {
  const TemporaryFolder folder;
  DpoConfig config = tiny_dpo_config(folder.path());
  make_small(config, 3);
  config.eval_steps = 100;
  GetParam().change(config);
  expect_the_same_bits(
      config, [](const DpoConfig& given) { return std::make_unique<DpoRun>(given); }, GetParam().expected);
}

// Completions that nothing ends before they are as long as may be.
struct GrpoRun {
  GrpoConfig config;
  GrpoData data;
  text::ModelText text = tiny_text();
  nn::ModelFiles files;
  std::unique_ptr<nn::Transformer> model;
  std::unique_ptr<GrpoObjective> objective;
  std::unique_ptr<Trainer> trainer;

  explicit GrpoRun(const GrpoConfig& given) : config(resolved(given)) {
    text.stop_token_ids = {};
    RandomStream random(9, RandomPurpose::test);
    for (int64_t row = 0; row < 4; ++row) {
      data::PromptRow prompt{.file = "prompts.jsonl", .line = row + 1, .prompt = "?"};
      prompt.columns = nlohmann::ordered_json::object();
      for (int i = 0; i < 3; ++i) prompt.ids.push_back(static_cast<int32_t>(random.below(small_vocabulary)));
      add_prompt(data.training, prompt);
    }
    data.longest_prompt = 3;
    files = nn::open_model_files(config.model);
    model = tiny_model(config, files, config.adapter,
                       {.max_positions = data.longest_prompt + config.max_completion_length, .device = simt_device});
    objective =
        std::make_unique<GrpoObjective>(*model, config, data, text, std::vector<NamedReward>{{"even", even_share}});
  }
  std::vector<StepRecord> train(int64_t steps = INT64_MAX) { return train_steps(*this, steps); }
  std::string parameter_bytes() const { return parameter_bytes_of(*model); }
  const StepGraphs* graphs() const { return objective->graphs(); }
};

class GrpoGraphs : public ::testing::TestWithParam<Kind<GrpoConfig>> {};
INSTANTIATE_TEST_SUITE_P(
    Kinds, GrpoGraphs,
    ::testing::Values(
        Kind<GrpoConfig>{"with_a_reference",
                         [](GrpoConfig& c) { c.beta = 0.1, c.lora_dropout = 0.2; },
                         1,
                         {.captured = 1, .replayed = 2}},
        Kind<GrpoConfig>{"entropies_resumed",
                         [](GrpoConfig& c) {
                           c.entropy_coef = 0.01, c.top_entropy_quantile = 0.5;
                           c.save_steps = 1, c.max_steps = 6;
                         },
                         1,
                         {.captured = 2, .replayed = 1 + 1, .stop_after = 3}},
        Kind<GrpoConfig>{"a_mixture", [](GrpoConfig& c) { of_a_mixture(c); }, 1, {.captured = 1, .replayed = 2}},
        Kind<GrpoConfig>{"convolutions", [](GrpoConfig& c) { of_convolutions(c); }, 1, {.captured = 1, .replayed = 2}},
        Kind<GrpoConfig>{
            "gated_delta_nets", [](GrpoConfig& c) { of_gated_delta_nets(c); }, 1, {.captured = 1, .replayed = 2}},
        Kind<GrpoConfig>{"dora_with_a_reference",
                         [](GrpoConfig& c) { c.use_dora = true, c.beta = 0.1; },
                         1,
                         {.captured = 1, .replayed = 2}},
        Kind<GrpoConfig>{"every_weight",
                         [](GrpoConfig& c) { c.use_peft = false, c.beta = 0.1; },
                         1,
                         {.captured = 1, .replayed = 2}}),
    name_of_kind<GrpoConfig>);

// Two prompts are answered twice each, and their answers learnt from in two steps, three times over.
TEST_P(GrpoGraphs, GiveTheBitsOfStepsThatAreQueued) {
  const TemporaryFolder folder;
  GrpoConfig config = tiny_grpo_config(folder.path());
  make_small(config, 4);
  config.per_device_train_batch_size = 2;
  config.num_generations = 2;
  config.steps_per_generation = 2;
  config.num_iterations = 3;
  config.max_completion_length = 3;
  GetParam().change(config);
  expect_the_same_bits(
      config, [](const GrpoConfig& given) { return std::make_unique<GrpoRun>(given); }, GetParam().expected);
}

}  // namespace
}  // namespace lathe::train
