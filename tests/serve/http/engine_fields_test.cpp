// Sampling fields that go through to the engine.
#include "data/tokenizer/utf8.h"
#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

TEST(Chat, LogProbabilitiesNameTheTokensOfTheText) {
  TestServer server;
  Client client(server.port());
  const json choice =
      client.post("/v1/chat/completions", chat({{"logprobs", true}, {"top_logprobs", 3}})).json()["choices"][0];
  const json& content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), 12u);
  for (const json& token : content) {
    EXPECT_LE(token["logprob"], 0);
    ASSERT_EQ(token["top_logprobs"].size(), 3u);
    EXPECT_EQ(token["top_logprobs"][0]["token"], token["token"]) << "greedy takes the likeliest";
    EXPECT_EQ(token["top_logprobs"][0]["logprob"], token["logprob"]);
    EXPECT_GE(token["top_logprobs"][0]["logprob"], token["top_logprobs"][1]["logprob"]);
  }
  const json plain = client.post("/v1/chat/completions", chat()).json()["choices"][0];
  EXPECT_TRUE(plain["logprobs"].is_null());
  EXPECT_EQ(plain["message"], choice["message"]);
}

TEST(Completions, LogitBiasAndMinTokensAreHeard) {
  TestServer server;
  Client client(server.port());
  const json banned = completion({{"logit_bias", {{"65", 100}}}, {"logprobs", 1}});
  const json choice = client.post("/v1/completions", banned).json()["choices"][0];
  for (const json& token : choice["logprobs"]["tokens"]) EXPECT_EQ(token, choice["logprobs"]["tokens"][0]);
  const std::string whole = client.post("/v1/completions", completion()).json()["choices"][0]["text"];
  const json late = completion({{"stop", whole.substr(0, data::code_point_length(whole[0]))}, {"min_tokens", 11}});
  EXPECT_GE(client.post("/v1/completions", late).json()["usage"]["completion_tokens"], 11);
}

TEST(Speculation, ChangesNoAnswerAndIsCounted) {
  std::string texts[2];
  for (const int guesses : {0, 4}) {
    TestServerOptions options;
    options.num_speculative_tokens = guesses;
    TestServer server(options);
    Client client(server.port());
    std::string prompt;
    for (int i = 0; i < 12; ++i) prompt += "it is.";
    // What it has said often is likelier, so that the tiny model repeats itself.
    const json body = completion({{"prompt", prompt}, {"max_tokens", 150}, {"logprobs", 1}, {"frequency_penalty", -2}});
    const Answer answer = client.post("/v1/completions", body);
    ASSERT_EQ(answer.status, 200) << answer.body;
    texts[guesses > 0] = answer.json()["choices"].dump();
    const engine::EngineStats stats = server.metrics().stats();
    EXPECT_EQ(stats.draft_tokens > 0, guesses > 0);
    const std::string line = "vllm:spec_decode_num_draft_tokens_total{model_name=\"tiny\"} ";
    EXPECT_NE(client.get("/metrics").body.find(line + std::to_string(stats.draft_tokens)), std::string::npos);
  }
  EXPECT_EQ(texts[0], texts[1]);
}

TEST(Forms, AnswersAreWhatTheRequestAllows) {
  TestServer server;
  Client client(server.port());
  const auto text = [&](const json& more) {
    json body = completion({{"ignore_eos", false}, {"max_tokens", 200}, {"temperature", 1}, {"seed", 3}});
    body.update(more);
    const Answer answer = client.post("/v1/completions", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.json()["choices"][0]["finish_reason"], "stop") << answer.body;
    return answer.json()["choices"][0]["text"].get<std::string>();
  };
  const std::string choice = text({{"guided_choice", {"yes", "no"}}});
  EXPECT_TRUE(choice == "yes" || choice == "no") << choice;
  const std::string digits = text({{"structured_outputs", {{"regex", "[0-9]{3}"}}}});
  EXPECT_EQ(digits.size(), 3u);
  EXPECT_EQ(digits.find_first_not_of("0123456789"), std::string::npos) << digits;
  const json schema{{"type", "object"},
                    {"properties", {{"size", {{"enum", {"s", "m"}}}}, {"many", {{"type", "boolean"}}}}},
                    {"required", {"size", "many"}},
                    {"additionalProperties", false}};
  const json format{{"type", "json_schema"}, {"json_schema", {{"name", "order"}, {"schema", schema}}}};
  const json order = json::parse(text({{"response_format", format}}), nullptr, false);
  EXPECT_TRUE(order["many"].is_boolean()) << order;
  EXPECT_TRUE(order["size"] == "s" || order["size"] == "m") << order;

  const json tgi{{"inputs", "it is"},
                 {"parameters", {{"max_new_tokens", 200}, {"grammar", {{"type", "regex"}, {"value", "a+b"}}}}}};
  const Answer answer = client.post("/generate", tgi);
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.json()["generated_text"].get<std::string>().find_first_not_of("ab"), std::string::npos);
}

}  // namespace
}  // namespace lathe::http
