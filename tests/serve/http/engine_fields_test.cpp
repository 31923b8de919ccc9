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

}  // namespace
}  // namespace lathe::http
