// Steps of equal shape as a graph: the bits of steps that are queued one by one, through everything that a run does
// between them, and nothing worse than that where a graph cannot be had. On simt, whose host code is a card's.
#include "train/step_graphs.h"

#include <gtest/gtest.h>

#include "autograd/ops/linear_cross_entropy.h"
#include "core/memory.h"
#include "kernels/cuda/runtime.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/simt/options.h"
#include "nn/attention_context.h"
#include "tests/train/tiny_run.h"
#include "train/memory_estimate.h"

namespace lathe::train {
namespace {

constexpr Device simt_device{DeviceKind::simt, 0};

// A sequence of so many tokens, of which `labelled` have a label after the shift, at random places.
struct RandomSequence {
  std::vector<int32_t> ids, labels;

  RandomSequence(RandomStream& random, int64_t length, int64_t labelled) {
    for (int64_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>(random.below(320)));
    labels.assign(ids.size(), kernels::ignored_label);
    while (labelled > 0) {
      const size_t place = 1 + random.below(static_cast<uint64_t>(length - 1));
      if (labels[place] != kernels::ignored_label) continue;
      labels[place] = ids[place];
      --labelled;
    }
  }
};

TrainingSet rows_of_lengths(const std::vector<int64_t>& lengths, uint64_t seed = 3) {
  TrainingSet set;
  RandomStream random(seed, RandomPurpose::test);
  for (const int64_t length : lengths) {
    const RandomSequence sequence(random, length, 5);
    set.add_row(sequence.ids, sequence.labels);
  }
  return set;
}
TrainingSet equal_rows(size_t rows) { return rows_of_lengths(std::vector<int64_t>(rows, 11)); }

// Two sequences in each row.
TrainingSet packed_rows(int64_t rows) {
  TrainingSet set;
  RandomStream random(4, RandomPurpose::test);
  for (int64_t row = 0; row < rows; ++row) {
    const RandomSequence first(random, 6, 3), second(random, 9, 4);
    set.add_row(first.ids, first.labels);
    set.add_to_row(second.ids, second.labels);
  }
  return set;
}

// Dropout, a rate that falls from step to step, rows in another order: every number of a step differs.
SftConfig repeating_config(const TemporaryFolder& folder) {
  SftConfig config = tiny_config(folder.path());
  config.dtype = "bfloat16";
  config.lora_dropout = 0.2;
  config.per_device_train_batch_size = 1;  // each token is emulated
  config.max_steps = 4;
  return config;
}

struct Trained {
  StepGraphCounts counts;
  std::string given_up, parameters, metrics;
};

const SftObjective& sft_of(const TinyRun& run) { return dynamic_cast<const SftObjective&>(*run.objective); }

MakeObjective evaluated_on(const TrainingSet* evaluation) {
  return [evaluation](nn::Transformer& model, const TrainingSet& training, const SftConfig& config) {
    return std::make_unique<SftObjective>(model, training, evaluation, config);
  };
}

Trained run_with(SftConfig config, bool graphs, const TrainingSet& rows, const TrainingSet* evaluation = nullptr,
                 const std::function<void(TinyRun&)>& between = {}) {
  config.cuda_graphs = graphs;
  config.overwrite_output_dir = true;
  TinyRun run(config, rows, evaluated_on(evaluation),
              {.quantized_linears = config.quantization(), .device = simt_device});
  while (!run.trainer || !run.trainer->done()) {
    run.train(run.trainer ? run.trainer->steps_done() + 1 : 1);
    if (between) between(run);
  }
  const StepGraphs* used = sft_of(run).graphs();
  return {.counts = used != nullptr ? used->counts() : StepGraphCounts{},
          .given_up = used != nullptr ? used->given_up() : "",
          .parameters = run.parameter_bytes(),
          .metrics = bytes_of(std::filesystem::path(config.output_dir) / "metrics.jsonl")};
}

void expect_same(const Trained& run, const Trained& expected) {
  EXPECT_EQ(run.metrics, expected.metrics);
  EXPECT_TRUE(run.parameters == expected.parameters) << "the weights differ";
}

struct Kind {
  const char* name;
  std::function<void(SftConfig&)> change;
  bool packed = false;
};

class StepGraphKinds : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(
    Kinds, StepGraphKinds,
    testing::Values(Kind{"lora", [](SftConfig& c) { c.per_device_train_batch_size = 2; }},
                    Kind{"lora_f16_without_dropout", [](SftConfig& c) { c.dtype = "float16", c.lora_dropout = 0; }},
                    Kind{"qlora", [](SftConfig& c) { c.load_in_4bit = true; }},
                    Kind{"accumulated_checkpointed",
                         [](SftConfig& c) { c.gradient_accumulation_steps = 2, c.gradient_checkpointing = true; }},
                    Kind{"packed_f32", [](SftConfig& c) { c.dtype = "float32"; }, true}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(StepGraphKinds, GiveTheBitsOfStepsThatAreQueued) {
  const TemporaryFolder folder;
  SftConfig config = repeating_config(folder);
  GetParam().change(config);
  const TrainingSet rows = GetParam().packed ? packed_rows(12) : equal_rows(12);
  const Trained run = run_with(config, true, rows);
  EXPECT_EQ(run.given_up, "");
  EXPECT_EQ(run.counts.captured, 1);
  EXPECT_EQ(run.counts.replayed, config.max_steps - 2);
  expect_same(run, run_with(config, false, rows));
}

TEST(StepGraphs, AreNotForWhatTheHostPlans) {
  const TemporaryFolder folder;
  for (const auto& change : std::vector<std::function<void(SftConfig&)>>{
           [](SftConfig& c) { c.use_peft = false; }, [](SftConfig& c) { c.use_dora = true; },
           [](SftConfig& c) { c.lora_modules_to_save = "lm_head"; },
           [](SftConfig& c) { c.lora_target_modules = "embed_tokens"; }}) {
    SftConfig config = repeating_config(folder);
    config.max_steps = 3;
    change(config);
    EXPECT_EQ(run_with(config, true, equal_rows(6)).counts.captured, 0);
  }
}

TEST(StepGraphs, AnotherShapeIsQueuedAndTheFirstComesBack) {
  const TemporaryFolder folder;
  SftConfig config = repeating_config(folder);
  config.shuffle = false;
  config.max_steps = 14;
  const TrainingSet rows = rows_of_lengths({11, 11, 11, 11, 11, 11, 11, 9, 11, 11, 11, 9, 9, 9});
  const Trained run = run_with(config, true, rows);
  EXPECT_EQ(run.counts.captured, 3);
  EXPECT_EQ(run.counts.replayed, 5 + 1) << "of the last two captures each comes after what its shape must wait for";
  expect_same(run, run_with(config, false, rows));
}

TEST(StepGraphs, ShapesThatComeOnceCostNothing) {
  const TemporaryFolder folder;
  SftConfig config = repeating_config(folder);
  config.shuffle = false;
  config.max_steps = 6;
  const Trained run = run_with(config, true, rows_of_lengths({11, 9, 11, 9, 12, 11}));
  EXPECT_EQ(run.counts.captured + run.counts.replayed, 0);
}

// Two of each in a row: none of their graphs would be replayed, so that they are captured less and less often.
TEST(StepGraphs, AGraphThatServesNobodyIsNotMadeForLong) {
  const TemporaryFolder folder;
  SftConfig config = repeating_config(folder);
  config.shuffle = false;
  config.max_steps = 8;
  const Trained run = run_with(config, true, rows_of_lengths({11, 11, 9, 9, 11, 11, 9, 9}));
  EXPECT_EQ(run.counts.captured, 1);
}

// An evaluation joins the factors of what began as a part of the base, and the next capture must join them again.
TEST(StepGraphs, EvaluationsAndCheckpointsBetweenReplaysChangeNothing) {
  const TemporaryFolder folder;
  SftConfig config = repeating_config(folder);
  config.init_lora_weights = "pissa";
  config.max_steps = 14;
  config.eval_steps = 6;
  config.save_steps = 4;
  const TrainingSet rows = equal_rows(12), evaluation = rows_of_lengths({7, 16, 11}, 5);
  const Trained run = run_with(config, true, rows, &evaluation);
  EXPECT_EQ(run.counts.captured, 3);
  EXPECT_EQ(run.counts.replayed, 4 + 5 + 1);
  expect_same(run, run_with(config, false, rows, &evaluation));
}

TEST(StepGraphs, ARunThatIsResumedEndsInTheSameBits) {
  const TemporaryFolder folder;
  SftConfig config = repeating_config(folder);
  config.max_steps = 9;
  config.save_steps = 5;
  const TrainingSet rows = equal_rows(12);
  const Trained expected = run_with(config, false, rows);
  config.cuda_graphs = true;
  config.overwrite_output_dir = true;
  {
    TinyRun stopped(config, rows, {}, {.device = simt_device});
    stopped.train(7);
    EXPECT_EQ(sft_of(stopped).graphs()->counts().replayed, 5);
  }
  config.overwrite_output_dir = false;
  config.resume = true;
  TinyRun resumed(config, rows, {}, {.device = simt_device});
  resumed.train();
  EXPECT_EQ(sft_of(resumed).graphs()->counts().replayed, 2);
  EXPECT_EQ(bytes_of(folder.path() / "metrics.jsonl"), expected.metrics);
  EXPECT_TRUE(resumed.parameter_bytes() == expected.parameters);
}

TEST(StepGraphs, ACaptureThatFailsIsAStepLikeAnyOther) {
  const TemporaryFolder folder;
  const SftConfig config = repeating_config(folder);
  const TrainingSet rows = equal_rows(12);
  const Trained expected = run_with(config, false, rows);
  struct Fault {
    simt::Call call;
    int64_t nth;
    const char* says;
  };
  for (const Fault& fault :
       {Fault{simt::Call::capture, 1, "capturing a graph"}, Fault{simt::Call::capture, 2, "making a graph"},
        Fault{simt::Call::launch, 40, "injected launch failure"}}) {
    const Trained run = run_with(config, true, rows, nullptr, [&](TinyRun& running) {
      if (running.trainer->steps_done() == 1) simt::fail_nth(fault.call, fault.nth);
    });
    EXPECT_NE(run.given_up.find(fault.says), std::string::npos) << run.given_up;
    EXPECT_EQ(run.counts.captured + run.counts.replayed, 0);
    expect_same(run, expected);
  }
}

TEST(StepGraphs, TakeNoMoreMemoryThanARunMay) {
  const TemporaryFolder folder;
  const SftConfig config = repeating_config(folder);
  const TrainingSet rows = equal_rows(12);
  Allocator& allocator = allocator_for(simt_device);
  allocator.release_cached();
  allocator.reset_peak();
  const Trained expected = run_with(config, false, rows);
  const int64_t alive = allocator.stats().total_peak_bytes;
  allocator.release_cached();
  allocator.reset_peak();
  expect_same(run_with(config, true, rows), expected);
  EXPECT_LE(allocator.stats().reserved_peak_bytes, alive + largest_cache(alive));
}

// The step allocates so much in a capture alone.
TEST(StepGraphs, ACaptureThatAsksForMoreIsGivenUp) {
  const TrainingSet rows = equal_rows(1);
  const int64_t row = 0;
  const MicroBatch batch = make_micro_batch(rows, {&row, 1}, 0);
  const Allocator& allocator = allocator_for(simt_device);
  int64_t alive = 0, as_ever = 0;
  StepGraphs graphs(simt_device);
  for (uint32_t step = 0; step < 4; ++step)
    graphs.run(StepNumbers({&batch, 1}, 0.1, step), [&](const StoredNumbers* stored) {
      if (stored == nullptr) {
        const Tensor room = Tensor::zeros({1 << 20}, DType::u8, simt_device);
        ++as_ever;
      } else {
        alive = allocator.stats().total_peak_bytes;
        const Tensor room = Tensor::zeros({alive + largest_cache(alive)}, DType::u8, simt_device);
      }
    });
  kernels::synchronize(simt_device);
  EXPECT_EQ(as_ever, 4);
  EXPECT_NE(graphs.given_up().find("under the limit of " + std::to_string(alive + largest_cache(alive))),
            std::string::npos)
      << graphs.given_up();
  EXPECT_NO_THROW(Tensor::empty({alive + largest_cache(alive)}, DType::u8, simt_device)) << "the limit is lifted";
}

// A number that a kernel does not read from memory that is written before each replay is that of the captured step.
enum class Left { nothing, ids, labelled_rows, labels, dropout };

class ThreeSteps {
 public:
  explicit ThreeSteps(const TemporaryFolder& folder) : config_(repeating_config(folder)) {
    files_ = nn::open_model_files(config_.model);
    model_ = tiny_model(config_, files_, "", {.device = simt_device});
    for (nn::Parameter& parameter : model_->trainable_parameters()) {  // as B begins, A has no gradient
      if (!parameter.name.ends_with("lora_B.weight")) continue;
      kernels::fill(parameter.master, 0.01);
      parameter.refresh();
    }
    optimizer_ = std::make_unique<Optimizer>(model_->trainable_parameters(), config_);
    const TrainingSet rows = equal_rows(3);
    for (int64_t step = 0; step < 3; ++step) batches_.push_back(make_micro_batch(rows, {&step, 1}, 0));
    std::vector<int32_t> numbers;
    const auto labels = batches_[1].labels.span<int32_t>();
    for (size_t row = 0; row < labels.size(); ++row)
      if (labels[row] != kernels::ignored_label) numbers.push_back(static_cast<int32_t>(row));
    kept_rows_ = on_device(numbers);
    for (int32_t& number : numbers) number = labels[static_cast<size_t>(number)];
    kept_labels_ = on_device(numbers);
  }

  // Of the third step: queued, captured and replayed are one each.
  std::string gradients_of_the_last(Left left) {
    StepGraphs graphs(simt_device);
    for (size_t step = 0; step < 3; ++step) {
      optimizer_->zero_gradients();
      graphs.run(StepNumbers({&batches_[step], 1}, 0.1, static_cast<uint32_t>(step)),
                 [&](StoredNumbers* stored) { accumulate(step, stored, left); });
      kernels::synchronize(simt_device);
    }
    EXPECT_EQ(graphs.counts().replayed, 1) << graphs.given_up();
    return gradients();
  }
  std::string gradients_without_graphs() {
    optimizer_->zero_gradients();
    accumulate(2, nullptr, Left::nothing);
    kernels::synchronize(simt_device);
    return gradients();
  }

 private:
  static Tensor on_device(const std::vector<int32_t>& numbers) {
    return kernels::moved(Tensor::of(std::span<const int32_t>(numbers), Shape{std::ssize(numbers)}), simt_device);
  }

  void accumulate(size_t step, StoredNumbers* stored, Left left) const {
    const MicroBatch& batch = batches_[step];
    nn::ForwardOptions options;
    options.adapter = {.dropout_seed = 7, .dropout_step = static_cast<uint32_t>(step), .training = true};
    nn::TokenBatch tokens = batch.tokens;
    Tensor labels = batch.labels, labelled_rows;
    if (stored != nullptr) {
      const StoredNumbers::Forward numbers = stored->next(batch);
      if (left != Left::dropout) options.adapter.stored_dropout_step = stored->dropout_step();
      if (left != Left::ids) tokens.ids = numbers.ids;
      labels = left == Left::labels ? kept_labels_ : numbers.labels;
      labelled_rows = left == Left::labelled_rows ? kept_rows_ : numbers.labelled_rows;
    }
    nn::PackedAttention attention(model_->config(), tokens.layout);
    const autograd::Variable hidden = model_->forward(tokens, attention, options);
    autograd::backward(autograd::linear_cross_entropy(hidden, model_->output_weight(), labels, tokens.layout, 0.1,
                                                      model_->softcap(), autograd::LossValue::left_out, labelled_rows)
                           .loss);
  }

  std::string gradients() const {
    std::string bytes;
    for (const nn::Parameter& parameter : optimizer_->parameters()) {
      const Tensor gradient = kernels::moved(parameter.leaf.grad(), {});
      bytes.append(static_cast<const char*>(gradient.raw()), static_cast<size_t>(gradient.nbytes()));
    }
    return bytes;
  }

  SftConfig config_;
  nn::ModelFiles files_;
  std::unique_ptr<nn::Transformer> model_;
  std::unique_ptr<Optimizer> optimizer_;  // whose gradients they are
  std::vector<MicroBatch> batches_;       // of each step
  Tensor kept_rows_, kept_labels_;        // of the captured one, in memory that nobody writes to
};

TEST(StepGraphs, ANumberThatStaysThatOfTheCapturedStepIsNoticed) {
  const TemporaryFolder folder;
  ThreeSteps steps(folder);
  const std::string expected = steps.gradients_without_graphs();
  EXPECT_TRUE(steps.gradients_of_the_last(Left::nothing) == expected);
  for (const Left left : {Left::ids, Left::labelled_rows, Left::labels, Left::dropout})
    EXPECT_FALSE(steps.gradients_of_the_last(left) == expected) << static_cast<int>(left);
}

// Ids and labels outside the vocabulary are for the operations that name them.
TEST(StepNumbers, KnowWhetherTheyAreOfTheVocabulary) {
  TrainingSet rows;
  rows.add_row(std::vector<int32_t>{1, 7, 2}, std::vector<int32_t>{-100, 9, 2});
  const int64_t row = 0;
  const MicroBatch batch = make_micro_batch(rows, {&row, 1}, 0);
  const StepNumbers numbers({&batch, 1}, 0.5, 4);
  EXPECT_EQ(numbers.values(), (std::vector<int32_t>{4, 1, 7, 2, 0, 1, 9, 2}));
  EXPECT_TRUE(numbers.within(10));
  EXPECT_FALSE(numbers.within(9));
  for (const int32_t bad : {-1, -101}) {
    batch.labels.data<int32_t>()[0] = bad;
    EXPECT_FALSE(StepNumbers({&batch, 1}, 0.5, 4).within(10));
  }
}

}  // namespace
}  // namespace lathe::train
