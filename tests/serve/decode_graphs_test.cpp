// Decoding on a device through graphs: the same bits as without, few captures, and an engine that goes on after a
// failure.
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simt/options.h"
#include "tests/serve/tiny_engine.h"
#include "tests/support/source_dir.h"

namespace lathe::engine {
namespace {

const Device simt_device{DeviceKind::simt};

nn::Transformer model_on_simt(DType dtype = DType::f32) { return tiny_model(dtype, simt_device, 256); }

Request request_of(size_t prompt, int64_t max_tokens, float temperature = 0.0f) {
  Request request;
  for (size_t i = 0; i < prompt; ++i) request.prompt.push_back(static_cast<int32_t>((i * 37 + prompt) % 320));
  request.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.seed = prompt;
  return request;
}

// MXFP4 stays as it is.
nn::Transformer mixture_on_simt(const char* name, DType dtype) {
  const nn::ModelFiles files = nn::open_model_files(std::filesystem::path(source_dir) / "tests/golden" / name);
  return nn::Transformer(files.config, *files.weights,
                         {.dtype = dtype, .stored_blocks = nn::StoredBlockUse::keep, .device = simt_device});
}
Request mixture_request(size_t prompt, int64_t max_tokens, float temperature = 0.0f) {
  Request request = request_of(prompt, max_tokens, temperature);
  for (int32_t& token : request.prompt) token %= 96;
  return request;
}

std::vector<Completion> without_graphs(const nn::Transformer& model, const std::vector<Request>& requests,
                                       EngineOptions options = {}) {
  options.device_graphs = 0;
  GraphCounts none;
  auto completions = generate(model, requests, options, {}, &none);
  EXPECT_EQ(none.captured + none.replayed, 0);
  return completions;
}

// 24 tokens after 55: the pages of one chunk of attention until 64, of two until 128.
TEST(DecodeGraphs, ASequenceIsCapturedWhenItsLengthHasDoubled) {
  const nn::Transformer model = model_on_simt(DType::bf16);
  const std::vector<Request> requests{request_of(55, 24, 0.9f)};
  GraphCounts counts;
  expect_same(generate(model, requests, {}, {}, &counts), without_graphs(model, requests));
  EXPECT_EQ(counts.captured, 2);
  EXPECT_EQ(counts.replayed, 21) << "the first of 24 tokens is the prefill's";
}

TEST(DecodeGraphs, SequencesOfDifferentLengthsShareAGraph) {
  const nn::Transformer model = model_on_simt();
  Request penalised = request_of(3, 8, 0.8f);
  penalised.sampling.repetition_penalty = 1.3f;
  penalised.sampling.top_k = 20;
  const std::vector<Request> requests{penalised, request_of(40, 8), request_of(70, 8)};
  GraphCounts counts;
  const auto together = generate(model, requests, {}, {}, &counts);
  expect_same(together, without_graphs(model, requests));
  EXPECT_EQ(counts.captured, 1);
  EXPECT_EQ(counts.replayed, 6);
  expect_same({together[2]}, generate(model, {requests[2]}));
}

TEST(DecodeGraphs, ACacheOfInt8AndPreemptionGiveTheSameBits) {
  const nn::Transformer model = model_on_simt();
  const std::vector<Request> requests{request_of(30, 12), request_of(31, 12), request_of(5, 12, 1.0f)};
  EngineOptions options;
  options.kv_cache_dtype = DType::i8;
  const auto expected = without_graphs(model, requests, options);
  options.kv_cache_tokens = 80;  // of 112 in whole pages: somebody waits, or is computed again
  options.max_tokens_per_step = 16;
  expect_same(generate(model, requests, options), expected);
}

TEST(DecodeGraphs, ASequenceMayJoinMidwayAndAnotherLeave) {
  const nn::Transformer model = model_on_simt();
  std::vector<Request> requests{request_of(20, 16, 1.1f), request_of(9, 4, 0.7f)};
  requests[1].sampling.presence_penalty = 0.5f;  // so that their graph ends with logits, the first one's with its token
  Engine engine(model);
  Answers answers;
  const RequestId first = engine.add(requests[0]);
  for (int i = 0; i < 5; ++i) step_into(answers, engine);
  const RequestId second = engine.add(requests[1]);
  while (!engine.idle()) step_into(answers, engine);
  expect_same({answers[first].completion, answers[second].completion}, without_graphs(model, requests));
  EXPECT_EQ(engine.graph_counts().captured, 2) << "alone, and both; alone again is replayed";
}

TEST(DecodeGraphs, BeyondSoManyShapesAllAreCapturedAnew) {
  const nn::Transformer model = model_on_simt();
  std::vector<Request> requests;
  for (size_t i = 0; i < 4; ++i) requests.push_back(request_of(1 + i, 3 + static_cast<int64_t>(i)));
  EngineOptions options;
  options.max_sequences = 3;  // the fourth makes them three again
  options.device_graphs = 1;
  GraphCounts counts;
  expect_same(generate(model, requests, options, {}, &counts), without_graphs(model, requests));
  const int64_t steps = counts.captured + counts.replayed;
  EXPECT_GE(counts.captured, 3);
  options.device_graphs = 3;
  expect_same(generate(model, requests, options, {}, &counts), without_graphs(model, requests));
  EXPECT_EQ(counts.captured, 3) << "of three, two and one sequences";
  EXPECT_EQ(counts.captured + counts.replayed, steps);
}

// A mixture whose routers' choice stays on the device: captured and replayed as any other.
TEST(DecodeGraphs, AMixturesStepIsReplayedWithTheBytesOfItsLaunches) {
  for (const char* name : {"tiny_mixtral", "tiny_qwen3_moe/some", "tiny_qwen3_moe/all", "tiny_olmoe",
                           "tiny_granite_moe", "tiny_qwen2_moe/all", "tiny_gpt_oss/dense", "tiny_gpt_oss/mxfp4"}) {
    SCOPED_TRACE(name);
    const nn::Transformer model = mixture_on_simt(name, DType::bf16);
    std::vector<Request> requests{mixture_request(20, 12), mixture_request(7, 12), mixture_request(3, 9, 0.9f)};
    GraphCounts counts;
    expect_same(generate(model, requests, {}, {}, &counts), without_graphs(model, requests));
    EXPECT_EQ(counts.captured, 2) << "of three sequences, and of two";
    EXPECT_EQ(counts.replayed, 9);
  }
}

// Layers that convolve find their sequences on the device, and gated delta nets and Mamba-2 their states. (A prompt of
// a whole page would take them two steps.)
class OtherMixers : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(DecodeGraphs, OtherMixers,
                         testing::Values("tiny_lfm2/plain", "tiny_qwen3_5/text", "tiny_qwen3_5_moe/text",
                                         "tiny_qwen3_next/all", "tiny_lfm2_moe/biased", "tiny_granite4/hybrid"),
                         [](const auto& info) {
                           const std::string model = info.param;
                           return model.substr(0, model.find('/'));
                         });
TEST_P(OtherMixers, AStepIsReplayedWithTheBytesOfItsLaunches) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const nn::Transformer model = mixture_on_simt(GetParam(), dtype);
    if (model.config().experts.num_experts > 0 && dtype == DType::f32) continue;  // no body takes its experts
    const std::vector<Request> requests{mixture_request(12, 12), mixture_request(7, 12), mixture_request(3, 9, 0.9f)};
    GraphCounts counts;
    expect_same(generate(model, requests, {}, {}, &counts), without_graphs(model, requests));
    EXPECT_EQ(counts.captured, 2) << "of three sequences, and of two";
    EXPECT_EQ(counts.replayed, 9);
  }
}

// Of f32 no body takes the experts.
TEST(DecodeGraphs, AMixturesStepThatAsksTheHostIsNotCaptured) {
  const nn::Transformer wide = mixture_on_simt("tiny_mixtral", DType::f32);
  const std::vector<Request> one{mixture_request(5, 4)};
  GraphCounts counts;
  expect_same(generate(wide, one, {}, {}, &counts), without_graphs(wide, one));
  EXPECT_EQ(counts.captured + counts.replayed, 0);
}

TEST(DecodeGraphs, AMixturesStepOfManySequencesIsReplayed) {
  const nn::Transformer model = mixture_on_simt("tiny_mixtral", DType::bf16);
  std::vector<Request> many;
  for (size_t i = 0; i < 17; ++i) many.push_back(mixture_request(1 + i, i == 0 ? 3 : 5));
  GraphCounts counts;
  expect_same(generate(model, many, {}, {}, &counts), without_graphs(model, many));
  EXPECT_EQ(counts.captured, 2) << "of 17, and of the last 16";
  EXPECT_EQ(counts.replayed, 2);
}

TEST(DecodeGraphs, AnAdapterOfAMixturesExpertsIsNotCaptured) {
  nn::Transformer model = mixture_on_simt("tiny_mixtral", DType::bf16);
  nn::LoraConfig experts;
  experts.target_parameters = {"mlp.experts.down_proj"};
  model.add_lora(experts, 1, "experts");
  Request base = mixture_request(2, 5), adapted = mixture_request(1, 3);
  base.adapter = "";
  adapted.adapter = "experts";
  GraphCounts counts;
  expect_same(generate(model, {base, adapted}, {}, {}, &counts), without_graphs(model, {base, adapted}));
  EXPECT_EQ(counts.captured, 1) << "of the base's sequence alone, once the other has ended";
  EXPECT_EQ(counts.replayed, 1);
}

struct Fault {
  const char* name;
  simt::Call call;
  int64_t nth;
  const char* says;
};

// Each in a step that captures (the first decode) and in one that replays.
TEST(DecodeGraphs, AFailureIsOneSentenceAndTheEngineGoesOn) {
  const nn::Transformer model = model_on_simt();
  const std::vector<Request> requests{request_of(10, 8, 0.9f), request_of(21, 8)};
  const auto expected = without_graphs(model, requests);
  const Fault faults[] = {{"upload", simt::Call::copy, 1, "copying to the device: invalid argument"},
                          {"begin of a capture", simt::Call::capture, 1, "capturing a graph: out of memory"},
                          {"making the graph", simt::Call::capture, 2, "making a graph: out of memory"},
                          {"launch within a capture", simt::Call::launch, 7, "injected launch failure"},
                          {"launch of the graph", simt::Call::launch, 1, "injected launch failure"}};
  for (const Fault& fault : faults) {
    for (const bool replays : {false, true}) {
      if (replays && (fault.call == simt::Call::capture || fault.nth == 7)) continue;  // nothing is captured then
      SCOPED_TRACE(std::string(fault.name) + (replays ? ", replayed" : ", captured"));
      Engine engine(model);
      for (const Request& request : requests) engine.add(request);
      Answers answers;
      for (int i = 0; i < (replays ? 3 : 1); ++i) step_into(answers, engine);
      simt::fail_nth(fault.call, fault.nth);
      try {
        engine.step();
        ADD_FAILURE() << "the failure went unnoticed";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(fault.says), std::string::npos) << error.what();
      }
      simt::fail_nth(fault.call, 0);
      while (!engine.idle()) step_into(answers, engine);
      expect_same(completions_of(answers), expected);
      EXPECT_EQ(engine.graph_counts().captured, 1);
    }
  }
}

// What graphs keep is counted, and goes back with the engine.
TEST(DecodeGraphs, TheirMemoryIsCountedAndGivenBack) {
  const nn::Transformer model = model_on_simt();
  const auto live = [] { return allocator_for(simt_device).stats().total_live_bytes; };
  const int64_t before = live();
  {
    Engine engine(model);
    engine.add(request_of(4, 3));
    const int64_t with_cache = live();
    engine.step();
    EXPECT_EQ(live(), with_cache);
    engine.step();
    EXPECT_GT(live(), with_cache);
  }
  EXPECT_EQ(live(), before);
}

}  // namespace
}  // namespace lathe::engine
