// Log-probabilities of a prompt's own tokens: echo with logprobs, as OpenAI tells them, and vLLM's prompt_logprobs.
#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

class PromptLogprobs : public testing::Test {
 protected:
  json ask(const json& more) {
    Client client(server_.port());
    const Answer answer = client.post("/v1/completions", completion(more));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json();
  }
  TestServer server_;
};

TEST_F(PromptLogprobs, EchoPutsThemBeforeTheAnswers) {
  const json plain = ask({{"logprobs", 2}})["choices"][0];
  const json echoed = ask({{"logprobs", 2}, {"echo", true}})["choices"][0];
  EXPECT_EQ(echoed["text"], "it is" + plain["text"].get<std::string>());
  const json& logprobs = echoed["logprobs"];
  const size_t prompt = logprobs["tokens"].size() - 12;
  ASSERT_GE(prompt, 2u);
  for (const char* list : {"token_logprobs", "top_logprobs", "text_offset"})
    EXPECT_EQ(logprobs[list].size(), prompt + 12) << list;
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  std::string text;
  for (size_t i = 0; i < prompt; ++i) {
    EXPECT_EQ(logprobs["text_offset"][i], text.size());
    text += logprobs["tokens"][i].get<std::string>();
    if (i > 0) {
      EXPECT_LE(logprobs["token_logprobs"][i], 0);
      EXPECT_EQ(logprobs["top_logprobs"][i].size(), 2u);
    }
  }
  EXPECT_EQ(text, "it is");
  for (const char* list : {"tokens", "token_logprobs", "top_logprobs"})
    EXPECT_EQ(json(logprobs[list].begin() + static_cast<std::ptrdiff_t>(prompt), logprobs[list].end()),
              plain["logprobs"][list]);
}

TEST_F(PromptLogprobs, VllmsListAndAnEchoAloneSayTheSame) {
  Client client(server_.port());
  const json tokens = client.post("/tokenize", json{{"prompt", "it is"}}).json()["tokens"];
  const size_t prompt = tokens.size();
  const json ids =
      ask({{"prompt", tokens}, {"prompt_logprobs", 0}, {"max_tokens", 1}})["choices"][0]["prompt_logprobs"];
  ASSERT_EQ(ids.size(), prompt);
  EXPECT_TRUE(ids[0].is_null());
  const json by_echo = ask({{"prompt", tokens}, {"logprobs", 0}, {"echo", true}, {"max_tokens", 0}})["choices"][0];
  EXPECT_EQ(by_echo["text"], "it is");
  EXPECT_EQ(by_echo["finish_reason"], "length");
  ASSERT_EQ(by_echo["logprobs"]["token_logprobs"].size(), prompt);
  for (size_t i = 1; i < prompt; ++i) {
    const json& entry = ids[i][std::to_string(tokens[i].get<int>())];
    EXPECT_EQ(entry["logprob"], by_echo["logprobs"]["token_logprobs"][i]);
    EXPECT_GE(entry["rank"], 1);
    EXPECT_EQ(entry["decoded_token"], by_echo["logprobs"]["tokens"][i]);
  }
}

TEST_F(PromptLogprobs, AStreamTellsTheSame) {
  for (const json& more :
       {json{{"logprobs", 1}, {"echo", true}}, json{{"logprobs", 1}, {"echo", true}, {"max_tokens", 0}},
        json{{"logprobs", 0}, {"echo", true}, {"n", 2}, {"prompt", {"it is", "and so"}}}}) {
    const json choices = ask(more)["choices"];
    json streamed = completion(more);
    streamed["stream"] = true;
    Client client(server_.port());
    json joined = json::array();
    for (size_t i = 0; i < choices.size(); ++i)
      joined.push_back({{"text", ""}, {"tokens", json::array()}, {"token_logprobs", json::array()}});
    for (const std::string& event : client.post("/v1/completions", streamed).events()) {
      if (event == "[DONE]") break;
      const json choice = json::parse(event)["choices"][0];
      json& place = joined[choice["index"].get<size_t>()];
      place["text"] = place["text"].get<std::string>() + choice["text"].get<std::string>();
      if (choice["logprobs"].is_null()) continue;
      for (const char* list : {"tokens", "token_logprobs"})
        place[list].insert(place[list].end(), choice["logprobs"][list].begin(), choice["logprobs"][list].end());
    }
    for (size_t i = 0; i < choices.size(); ++i) {
      EXPECT_EQ(joined[i]["text"], choices[i]["text"]) << more;
      for (const char* list : {"tokens", "token_logprobs"})
        EXPECT_EQ(joined[i][list], choices[i]["logprobs"][list]) << more;
    }
  }
}

TEST_F(PromptLogprobs, OfAChatAreVllms) {
  Client client(server_.port());
  const json answer = client.post("/v1/chat/completions", chat({{"prompt_logprobs", 1}})).json();
  EXPECT_EQ(answer["prompt_logprobs"].size(), answer["usage"]["prompt_tokens"].get<size_t>());
  EXPECT_TRUE(answer["prompt_logprobs"][0].is_null());
  const Answer refused = client.post("/v1/chat/completions", chat({{"prompt_logprobs", 1}, {"stream", true}}));
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json()["error"]["param"], "prompt_logprobs");
  EXPECT_EQ(client.post("/v1/completions", completion({{"max_tokens", 0}})).status, 400)
      << "without echo there is nothing";
}

}  // namespace
}  // namespace lathe::http
