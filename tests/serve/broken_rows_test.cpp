// A sequence whose logits are NaN ends as failed; nobody beside it notices.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "tests/serve/tiny_engine.h"

namespace lathe::engine {
namespace {

nn::PeftAdapter broken_adapter() {
  nn::Transformer model = tiny_model(DType::f32);
  nn::LoraConfig config;
  config.target_modules = {"q_proj"};
  model.add_lora(config, 1);
  nn::PeftAdapter adapter = model.adapter();
  for (auto& [module, weights] : adapter.modules)
    for (float& value : weights.b.span<float>()) value = std::numeric_limits<float>::quiet_NaN();
  return adapter;
}

// Requests that are drawn in each of the ways there are.
std::vector<Request> some_requests() {
  std::vector<Request> requests;
  for (int32_t i = 0; i < 4; ++i) {
    Request request;
    request.prompt = {5, 9, 3 + i};
    request.max_tokens = 8;
    request.sampling.temperature = i == 0 ? 0.0f : 1.0f;
    request.sampling.seed = static_cast<uint64_t>(i);
    if (i == 2) request.sampling.presence_penalty = 1.5f;
    if (i == 3) request.top_logprobs = 3;
    request.adapter = "";
    requests.push_back(request);
  }
  return requests;
}

class BrokenRows : public testing::TestWithParam<Device> {};

TEST_P(BrokenRows, EndAloneAndSayWhy) {
  nn::Transformer model = tiny_model(DType::f32, GetParam(), 256);
  model.load_adapter(broken_adapter(), "broken");
  const std::vector<Completion> alone = generate(model, some_requests());
  Engine engine(model, {.kv_cache_tokens = 1024});
  std::vector<RequestId> good, bad;
  for (Request request : some_requests()) {
    good.push_back(engine.add(request));
    request.adapter = "broken";
    bad.push_back(engine.add(request));
  }
  Request embedding{.prompt = {4, 5}, .sampling = {}, .max_tokens = 0};
  embedding.pooling = Pooling::mean;
  embedding.adapter = "broken";
  bad.push_back(engine.add(embedding));
  Answers answers;
  std::vector<RequestId> failed;
  while (!engine.idle())
    for (const TokenOutput& output : engine.step()) {
      if (output.finish_reason == FinishReason::failed) {
        EXPECT_FALSE(output.failure.empty());
        failed.push_back(output.request);
        continue;
      }
      Completion& completion = answers[output.request].completion;
      completion.tokens.push_back(output.token);
      completion.logprobs.push_back(output.logprob);
      if (output.finish_reason) completion.finish_reason = *output.finish_reason;
    }
  std::ranges::sort(failed);
  EXPECT_EQ(failed, bad);
  expect_same(completions_of(answers), alone);
  expect_all_given_back(engine, 64);
  Request request = some_requests()[0];
  request.adapter = "broken";
  EXPECT_THROW(generate(model, {request}), NumericError);
}

INSTANTIATE_TEST_SUITE_P(Devices, BrokenRows, testing::Values(Device{}, Device{DeviceKind::simt, 0}),
                         [](const auto& info) { return info.index == 0 ? "cpu" : "simt"; });

}  // namespace
}  // namespace lathe::engine
