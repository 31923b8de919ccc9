// An adapter whose weights are NaN: its requests end with an error, all others are answered as if it were not there.
#include <limits>

#include "nn/weights/peft.h"
#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

void write_broken_adapter(const TestServer& server) {
  const nn::ModelFiles files = nn::open_model_files(server.folder() / "model");
  nn::Transformer model(files.config, *files.weights, {.dtype = DType::f32});
  nn::LoraConfig config;
  config.target_modules = {"q_proj"};
  model.add_lora(config, 1);
  nn::PeftAdapter adapter = model.adapter();
  for (auto& [name, weights] : adapter.modules)
    for (float& element : weights.b.span<float>()) element = std::numeric_limits<float>::quiet_NaN();
  std::filesystem::create_directories(server.folder() / "adapters/broken");
  nn::write_peft_adapter(server.folder() / "adapters/broken", adapter);
}

TEST(BrokenAdapter, FailsItsOwnRequestsAlone) {
  TestServer server;
  write_broken_adapter(server);
  Client admin(server.port());
  const json load{{"lora_name", "broken"}, {"lora_path", "broken"}};
  ASSERT_EQ(admin.post("/v1/load_lora_adapter", load).status, 200);
  const json body = completion({{"max_tokens", 200}});
  const json expected = admin.post("/v1/completions", body).json()["choices"];
  Client good(server.port());
  good.ask("POST", "/v1/completions", body.dump());
  for (const json& more :
       {json::object(), json{{"n", 3}, {"temperature", 1}}, json{{"logprobs", 2}},
        json{{"echo", true}, {"logprobs", 1}}, json{{"guided_regex", "a+"}, {"ignore_eos", false}}}) {
    json asked = completion({{"model", "broken"}});
    asked.update(more);
    const Answer answer = admin.post("/v1/completions", asked);
    EXPECT_EQ(answer.status, 500) << more << answer.body;
    EXPECT_NE(answer.body.find("NaN"), std::string::npos) << answer.body;
  }
  const Answer stream = admin.post("/v1/completions", completion({{"model", "broken"}, {"stream", true}}));
  EXPECT_NE(stream.body.find("\"type\":\"server_error\""), std::string::npos) << stream.body;
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(admin.post("/v1/embeddings", json{{"input", "it is"}, {"model", "broken"}}).status, 500);
  EXPECT_EQ(good.answer().json()["choices"], expected);
  EXPECT_EQ(admin.get("/health").status, 200) << "the engine is well";
  EXPECT_NE(admin.get("/metrics").body.find("finished_reason=\"error\"} 9"), std::string::npos);
  EXPECT_TRUE(server.becomes_idle());
}

}  // namespace
}  // namespace lathe::http
