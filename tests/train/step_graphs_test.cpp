// Steps of equal shape as a graph: what is captured, replayed, queued as ever and given up, and that every number of a
// step is its own. What runs make of it: step_graph_runs_test.cpp. On simt, whose host code is a card's.
#include "train/step_graphs.h"

#include <gtest/gtest.h>

#include "autograd/ops/linear_cross_entropy.h"
#include "core/memory.h"
#include "kernels/add/add.h"
#include "kernels/cuda/host_work.h"
#include "kernels/cuda/runtime.h"
#include "kernels/embedding/embedding.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/simt/options.h"
#include "nn/attention_context.h"
#include "tests/train/small_model.h"
#include "train/dpo/pair_forward.h"
#include "train/grpo/policy_forward.h"
#include "train/memory_estimate.h"

namespace lathe::train {
namespace {

constexpr Device simt_device{DeviceKind::simt, 0};

MicroBatch batch_of(const std::vector<int32_t>& ids, const std::vector<int32_t>& labels) {
  TrainingSet set;
  set.add_row(ids, labels);
  const int64_t row = 0;
  return make_micro_batch(set, {&row, 1}, 0);
}

// Steps whose result is easily known: each id doubled, as the device and then the host make it of what they are given.
class Doubling {
 public:
  explicit Doubling(int64_t weights = 2) : graphs_(simt_device, {}) {
    const Tensor table = Tensor::empty({64, weights}, DType::f32);
    for (int64_t i = 0; i < table.numel(); ++i) {
      const int64_t id = i / weights;
      table.data<float>()[i] = static_cast<float>(id);
    }
    table_ = kernels::moved(table, simt_device);
  }

  // A step of so many tokens. Gives how often its work was queued.
  int step(int64_t tokens) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>((5 * ++seen_) % 64));
    const MicroBatch batch = batch_of(ids, ids);
    StepNumbers numbers(1.0, 0);
    numbers.add(batch);
    const auto found = std::make_shared<std::vector<float>>();
    const auto part = std::make_shared<const Part>(Part{found});
    int queued = 0;
    graphs_.run(
        numbers,
        [&](StoredNumbers* stored) {
          ++queued;
          queue(inputs_of(batch, stored).tokens.ids, stored != nullptr ? in_graph_ : HostPart<Part>::of(part));
        },
        [&] { in_graph_.queue_put(simt_device, part); });
    kernels::synchronize(simt_device);
    std::vector<float> expected;
    for (const int32_t id : ids) expected.push_back(2.0f * static_cast<float>(id));
    EXPECT_EQ(*found, expected);
    return queued;
  }
  void steps(const std::vector<int64_t>& tokens) {
    for (const int64_t count : tokens) step(count);
  }

  StepGraphs& graphs() { return graphs_; }
  int64_t captured() const { return graphs_.counts().captured; }
  int64_t replayed() const { return graphs_.counts().replayed; }

 private:
  struct Part {
    std::shared_ptr<std::vector<float>> found;
  };

  void queue(const Tensor& ids, const HostPart<Part>& part) const {
    const Tensor rows = Tensor::empty({ids.numel(), table_.dim(1)}, DType::f32, simt_device);
    kernels::embedding_forward(rows, table_, ids);
    kernels::scale(rows, rows, 2.0);
    kernels::queue_host_work(simt_device, [part, here = kernels::queued_to_host(rows)] {
      for (int64_t i = 0; i < here.dim(0); ++i) part->found->push_back(here.data<float>()[i * here.dim(1)]);
    });
  }

  Tensor table_;
  StepGraphs graphs_;
  HostPart<Part> in_graph_;
  int64_t seen_ = 0;
};

TEST(StepGraphs, AnotherShapeIsQueuedAndTheFirstComesBack) {
  Doubling doubling;
  doubling.steps({11, 11, 11, 11, 11, 11, 11, 9, 11, 11, 11, 9, 9, 9});
  EXPECT_EQ(doubling.captured(), 3);
  EXPECT_EQ(doubling.replayed(), 5 + 1) << "of the last two captures each comes after what its shape must wait for";
  EXPECT_EQ(doubling.graphs().given_up(), "");
}

TEST(StepGraphs, ShapesThatComeOnceCostNothing) {
  Doubling doubling;
  doubling.steps({11, 9, 11, 9, 12, 11});
  EXPECT_EQ(doubling.captured() + doubling.replayed(), 0);
}

// Two of each in a row: none of their graphs would be replayed, so that they are captured less and less often.
TEST(StepGraphs, AGraphThatServesNobodyIsNotMadeForLong) {
  Doubling doubling;
  doubling.steps({11, 11, 9, 9, 11, 11, 9, 9});
  EXPECT_EQ(doubling.captured(), 1);
}

TEST(StepGraphs, OneThatWasForgottenIsMadeAgain) {
  Doubling doubling;
  doubling.steps({11, 11, 11, 11, 11, 11});
  doubling.graphs().forget();
  doubling.steps({11, 11});
  EXPECT_EQ(doubling.captured(), 2);
}

TEST(StepGraphs, ACaptureThatFailsIsAStepLikeAnyOther) {
  struct Fault {
    simt::Call call;
    int64_t nth;
    const char* says;
  };
  // The second step's launches: what puts it where the host's work looks, then those of the capture.
  for (const Fault& fault :
       {Fault{simt::Call::capture, 1, "capturing a graph"}, Fault{simt::Call::capture, 2, "making a graph"},
        Fault{simt::Call::launch, 3, "injected launch failure"},
        Fault{simt::Call::launch, 4, "queueing work of the host"}, Fault{simt::Call::launch, 5, "launching a graph"}}) {
    Doubling doubling;
    doubling.step(11);
    simt::fail_nth(fault.call, fault.nth);
    EXPECT_GE(doubling.step(11), 1);
    simt::fail_nth(fault.call, 0);
    doubling.steps({11, 11});
    EXPECT_NE(doubling.graphs().given_up().find(fault.says), std::string::npos) << doubling.graphs().given_up();
    EXPECT_EQ(doubling.captured() + doubling.replayed(), 0);
  }
}

// The step allocates so much in a capture alone.
TEST(StepGraphs, ACaptureThatAsksForMoreIsGivenUp) {
  const MicroBatch batch = batch_of({1, 2}, {1, 2});
  const Allocator& allocator = allocator_for(simt_device);
  int64_t alive = 0, as_ever = 0;
  StepGraphs graphs(simt_device, {});
  for (uint32_t step = 0; step < 4; ++step) {
    StepNumbers numbers(0.1, step);
    numbers.add(batch);
    graphs.run(numbers, [&](const StoredNumbers* stored) {
      if (stored == nullptr) {
        const Tensor room = Tensor::zeros({1 << 20}, DType::u8, simt_device);
        ++as_ever;
      } else {
        alive = allocator.stats().total_peak_bytes;
        const Tensor room = Tensor::zeros({alive + largest_cache(alive)}, DType::u8, simt_device);
      }
    });
  }
  kernels::synchronize(simt_device);
  EXPECT_EQ(as_ever, 4);
  EXPECT_NE(graphs.given_up().find("under the limit of " + std::to_string(alive + largest_cache(alive))),
            std::string::npos)
      << graphs.given_up();
  EXPECT_NO_THROW(Tensor::empty({alive + largest_cache(alive)}, DType::u8, simt_device)) << "the limit is lifted";
}

// Three steps of which the last is replayed: each number that is left as the captured step had it must show.
enum class Left { nothing, ids, labelled_rows, labels, dropout, embedding_plan };

enum class Head { frozen, trained };

// A small model with what trains by ids: LoRA with dropout, also on the embedding; and by labels: a whole output
// projection.
class TrainedModel {
 public:
  explicit TrainedModel(Head head) {
    config_ = tiny_config(folder_.path());
    config_.model = small_model();
    config_.dtype = "bfloat16";
    config_.lora_dropout = 0.2;
    config_.lora_target_modules = "q_proj,down_proj,embed_tokens";
    if (head == Head::trained) config_.lora_modules_to_save = "lm_head";
    files_ = nn::open_model_files(config_.model);
    model_ = tiny_model(config_, files_, "", {.device = simt_device});
    for (nn::Parameter& parameter : model_->trainable_parameters()) {  // as they begin, some have no gradient
      if (parameter.name.find("lora_") == std::string::npos) continue;
      kernels::fill(parameter.master, 0.01);
      parameter.refresh();
    }
    optimizer_ = std::make_unique<Optimizer>(model_->trainable_parameters(), config_);
  }

  const nn::Transformer& model() const { return *model_; }
  const SftConfig& config() const { return config_; }
  TrainedTables tables() { return TrainedTables::of(*model_); }
  std::vector<nn::Parameter> parameters() { return model_->trainable_parameters(); }
  void zero_gradients() { optimizer_->zero_gradients(); }
  // Waits for the device.
  std::string gradients() const {
    kernels::synchronize(simt_device);
    std::string bytes;
    for (const nn::Parameter& parameter : optimizer_->parameters()) {
      const Tensor gradient = kernels::moved(parameter.leaf.grad(), {});
      bytes.append(static_cast<const char*>(gradient.raw()), static_cast<size_t>(gradient.nbytes()));
    }
    return bytes;
  }

 private:
  TemporaryFolder folder_;
  SftConfig config_;
  nn::ModelFiles files_;
  std::unique_ptr<nn::Transformer> model_;
  std::unique_ptr<Optimizer> optimizer_;  // whose gradients they are
};

TrainedModel& trained_model(Head head = Head::trained) {
  static TrainedModel whole(Head::trained), adapted(Head::frozen);
  return head == Head::trained ? whole : adapted;
}

class ThreeSteps {
 public:
  ThreeSteps() {
    const TrainingSet rows = three_rows();
    for (int64_t step = 0; step < 3; ++step) batches_.push_back(make_micro_batch(rows, {&step, 1}, 0));
    StepNumbers numbers(0.1, 1, trained_model().tables());
    numbers.add(batches_[1]);
    kept_.emplace(
        kernels::moved(Tensor::of(std::span<const int32_t>(numbers.values()), Shape{std::ssize(numbers.values())}),
                       simt_device),
        numbers.trained());
    kept_inputs_ = kept_->next(batches_[1]);
  }

  // Of the third step: queued, captured and replayed are one each.
  std::string gradients_of_the_last(Left left) {
    StepGraphs graphs(simt_device, trained_model().parameters());
    for (size_t step = 0; step < 3; ++step) {
      trained_model().zero_gradients();
      StepNumbers numbers(0.1, static_cast<uint32_t>(step), trained_model().tables());
      numbers.add(batches_[step]);
      graphs.run(numbers, [&](StoredNumbers* stored) { accumulate(step, stored, left); });
      kernels::synchronize(simt_device);
    }
    EXPECT_EQ(graphs.counts().replayed, 1) << graphs.given_up();
    return trained_model().gradients();
  }
  std::string gradients_without_graphs() {
    trained_model().zero_gradients();
    accumulate(2, nullptr, Left::nothing);
    return trained_model().gradients();
  }

 private:
  // Two sequences each, with as many labels in every step, elsewhere.
  static TrainingSet three_rows() {
    TrainingSet set;
    RandomStream random(3, RandomPurpose::test);
    for (int row = 0; row < 3; ++row)
      for (int s = 0; s < 2; ++s) {
        std::vector<int32_t> ids, labels;
        for (int i = 0; i < 6; ++i) {
          ids.push_back(static_cast<int32_t>(random.below(small_vocabulary)));
          labels.push_back((i + row) % 3 == 0 ? -100 : ids.back());
        }
        labels[0] = -100, labels[1 + static_cast<size_t>(row)] = ids[1 + static_cast<size_t>(row)];
        s == 0 ? set.add_row(ids, labels) : set.add_to_row(ids, labels);
      }
    return set;
  }

  void accumulate(size_t step, StoredNumbers* stored, Left left) const {
    ForwardInputs inputs = inputs_of(batches_[step], stored);
    if (stored != nullptr) {
      if (left == Left::ids) inputs.tokens.ids = kept_inputs_.tokens.ids;
      if (left == Left::embedding_plan) inputs.tokens.embedding_plan = kept_inputs_.tokens.embedding_plan;
      if (left == Left::labels) inputs.labels = kept_inputs_.labels;
      if (left == Left::labelled_rows) inputs.labelled.rows = kept_inputs_.labelled.rows;
      if (left == Left::dropout) inputs.dropout_step = nullptr;
    }
    nn::ForwardOptions options;
    options.adapter = {.dropout_seed = 7,
                       .dropout_step = static_cast<uint32_t>(step),
                       .training = true,
                       .stored_dropout_step = inputs.dropout_step};
    const nn::Transformer& model = trained_model().model();
    nn::PackedAttention attention(model.config(), inputs.tokens.layout);
    const autograd::Variable hidden = model.forward(inputs.tokens, attention, options);
    autograd::backward(autograd::linear_cross_entropy(hidden, model.output_weight(), inputs.labels,
                                                      inputs.tokens.layout, 0.1, model.softcap(),
                                                      autograd::LossValue::left_out, inputs.labelled)
                           .loss);
  }

  std::vector<MicroBatch> batches_;  // of each step
  // The captured one's, in memory that nobody writes to.
  std::optional<StoredNumbers> kept_;
  ForwardInputs kept_inputs_;
};

TEST(StepGraphs, ANumberThatStaysThatOfTheCapturedStepIsNoticed) {
  ThreeSteps steps;
  const std::string expected = steps.gradients_without_graphs();
  EXPECT_TRUE(steps.gradients_of_the_last(Left::nothing) == expected);
  for (const Left left : {Left::ids, Left::labelled_rows, Left::labels, Left::dropout, Left::embedding_plan})
    EXPECT_FALSE(steps.gradients_of_the_last(left) == expected) << static_cast<int>(left);
}

void add_to(StepNumbers& numbers, const PairPass& pass) {
  for (const PairBatch& batch : pass.batches) numbers.add(batch.batch, batch.prefixes.lengths);
}
void add_to(StepNumbers& numbers, const PolicyPass& pass) {
  for (const MicroBatch& batch : pass.batches) numbers.add(batch);
}

// The same of what work of the host reads: `Pass` has a step's forwards, `Work` what the host makes of them. `spoil`
// takes of the captured step's work what is to stay.
template <class Pass, class Work>
std::string gradients_of_the_last(TrainedModel& model, const std::vector<Pass>& passes, const auto& learn,
                                  const std::function<void(Work&, const Work&)>& spoil) {
  StepGraphs graphs(simt_device, model.parameters());
  HostPart<Work> in_graph;
  for (size_t step = 0; step < passes.size(); ++step) {
    model.zero_gradients();
    StepNumbers numbers(1.0, static_cast<uint32_t>(step), model.tables());
    add_to(numbers, passes[step]);
    Work work = *passes[step].work;
    if (spoil && step == 2) spoil(work, *passes[1].work);
    const auto part = std::make_shared<const Work>(work);
    graphs.run(
        numbers,
        [&](StoredNumbers* stored) {
          learn(passes[step], stored != nullptr ? in_graph : HostPart<Work>::of(part), stored);
        },
        [&] { in_graph.queue_put(simt_device, part); });
    kernels::synchronize(simt_device);
  }
  EXPECT_EQ(graphs.counts().replayed, 1) << graphs.given_up();
  return model.gradients();
}

// As many labels in every step, elsewhere; a gradient that depends on the step.
PairPass pair_step(int step) {
  TrainingSet pairs;
  RandomStream random(static_cast<uint64_t>(step) + 5, RandomPurpose::test);
  for (int s = 0; s < 2; ++s) {
    std::vector<int32_t> ids, labels;
    for (int i = 0; i < 6; ++i) {
      ids.push_back(static_cast<int32_t>(random.below(small_vocabulary)));
      // Three of the chosen sequence and one of the other, so that two are beyond the length of the shorter.
      labels.push_back((s == 0 ? i > 1 && i != 4 - step : i == 3 + step) ? ids.back() : -100);
    }
    s == 0 ? pairs.add_row(ids, labels) : pairs.add_to_row(ids, labels);
  }
  PairForwardOptions options;
  options.ld_alpha = 0.5;
  options.forward.adapter = {.dropout_seed = 7, .dropout_step = static_cast<uint32_t>(step), .training = true};
  const std::vector<int64_t> rows = {0};
  return pair_pass(trained_model().model(), pairs, rows, trained_model().config(), options,
                   [step](size_t, std::span<const PairSums> sums, std::span<PairGradient> gradients) {
                     gradients[0] = {.chosen = 0.01 * sums[0].chosen.logps, .rejected = 0.1 * (step + 1)};
                     return sums[0].chosen.logps;
                   });
}

TEST(StepGraphs, AnythingOfThePairsThatStaysIsNoticed) {
  const std::vector<PairPass> passes = {pair_step(0), pair_step(1), pair_step(2)};
  const auto learn = [](const PairPass& pass, const HostPart<PairWork>& work, StoredNumbers* stored) {
    learn_pairs(pass, work, stored);
  };
  trained_model().zero_gradients();
  learn(passes[2], HostPart<PairWork>::of(passes[2].work), nullptr);
  const std::string expected = trained_model().gradients();
  using Spoil = std::function<void(PairWork&, const PairWork&)>;
  EXPECT_TRUE((gradients_of_the_last<PairPass, PairWork>(trained_model(), passes, learn, {}) == expected));
  const std::vector<Spoil> spoils = {
      [](PairWork& work, const PairWork& before) { work.forwards[0].labels = before.forwards[0].labels; },
      [](PairWork& work, const PairWork& before) { work.forwards[0].tail_begins = before.forwards[0].tail_begins; },
      [](PairWork& work, const PairWork& before) { work.made = before.made; },
      [](PairWork& work, const PairWork& before) { work = before; }};
  for (size_t i = 0; i < spoils.size(); ++i)
    EXPECT_FALSE((gradients_of_the_last<PairPass, PairWork>(trained_model(), passes, learn, spoils[i]) == expected))
        << i;
}

// Completions of other lengths, in sequences of the same.
PolicyPass policy_step(int step) {
  RandomStream random(static_cast<uint64_t>(step) + 15, RandomPurpose::test);
  std::vector<std::vector<int32_t>> prompts, completions;
  for (int s = 0; s < 2; ++s) {
    const auto ids = [&](int count) {
      std::vector<int32_t> tokens;
      for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random.below(small_vocabulary)));
      return tokens;
    };
    const int completion = 2 + (s == 0 ? step : 2 - step);
    prompts.push_back(ids(6 - completion));
    completions.push_back(ids(completion));
  }
  PolicyForwardOptions options;
  options.entropy_gradients = true;
  options.forward.adapter = {.dropout_seed = 7, .dropout_step = static_cast<uint32_t>(step), .training = true};
  std::vector<CompletedPrompt> sequences;
  for (size_t s = 0; s < 2; ++s) sequences.push_back({prompts[s], completions[s]});
  return policy_pass(trained_model(Head::frozen).model(), sequences, trained_model(Head::frozen).config(), options,
                     [step](size_t i, const CompletionTokens& tokens, CompletionGradients gradients) {
                       double loss = 0;
                       for (size_t t = 0; t < tokens.logprobs.size(); ++t) {
                         gradients.logprobs[t] = 0.1 * tokens.logprobs[t] + 0.1 * step + static_cast<double>(i);
                         gradients.entropies[t] = 0.1 * tokens.entropies[t];
                         loss += tokens.logprobs[t];
                       }
                       return loss;
                     });
}

TEST(StepGraphs, AnythingOfTheCompletionsThatStaysIsNoticed) {
  TrainedModel& model = trained_model(Head::frozen);
  const std::vector<PolicyPass> passes = {policy_step(0), policy_step(1), policy_step(2)};
  const auto learn = [](const PolicyPass& pass, const HostPart<PolicyWork>& work, StoredNumbers* stored) {
    learn_completions(pass, work, stored);
  };
  model.zero_gradients();
  learn(passes[2], HostPart<PolicyWork>::of(passes[2].work), nullptr);
  const std::string expected = model.gradients();
  using Spoil = std::function<void(PolicyWork&, const PolicyWork&)>;
  EXPECT_TRUE((gradients_of_the_last<PolicyPass, PolicyWork>(model, passes, learn, {}) == expected));
  const std::vector<Spoil> spoils = {
      [](PolicyWork& work, const PolicyWork& before) { work.forwards = before.forwards; },
      [](PolicyWork& work, const PolicyWork& before) { work.made = before.made; }};
  for (size_t i = 0; i < spoils.size(); ++i)
    EXPECT_FALSE((gradients_of_the_last<PolicyPass, PolicyWork>(model, passes, learn, spoils[i]) == expected)) << i;
}

// Ids and labels outside the vocabulary are for the operations that name them.
TEST(StepNumbers, KnowWhetherTheyAreOfTheVocabulary) {
  const MicroBatch batch = batch_of({1, 7, 2}, {-100, 9, 2});
  StepNumbers numbers(0.5, 4);
  numbers.add(batch);
  EXPECT_EQ(numbers.values(), (std::vector<int32_t>{4, 1, 7, 2, 0, 1, 9, 2}));
  EXPECT_TRUE(numbers.within(10));
  EXPECT_FALSE(numbers.within(9));
  for (const int32_t bad : {-1, -101}) {
    batch.labels.data<int32_t>()[0] = bad;
    StepNumbers with_bad(0.5, 4);
    with_bad.add(batch);
    EXPECT_FALSE(with_bad.within(10));
  }
}

}  // namespace
}  // namespace lathe::train
