// Thoughts over HTTP: whole, in streams, and before answers of a given form.
#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

// `prompt_end` is what the template writes before an answer.
TestServerOptions with_marks(const std::string& prompt_end) {
  TestServerOptions options;
  options.chat_template =
      "{% for m in messages %}<|im_start|>{{ m.reasoning_content }}{{ m.content }}<|im_end|>"
      "{% endfor %}{# [THINK] [/THINK] #}" +
      prompt_end;
  options.renamed_token = {"<|endoftext|>", "[/THINK]"};  // a control token
  return options;
}

// An answer of this form, by its bytes.
json of_form(const std::string& expression, const json& more = json::object()) {
  json body = chat({{"structured_outputs", {{"regex", expression}}},
                    {"temperature", 1},
                    {"seed", 1},
                    {"max_tokens", 200},
                    {"ignore_eos", false}});
  body.update(more);
  return body;
}

json joined(const Answer& stream, json& usage) {
  json message{{"content", ""}, {"reasoning_content", ""}};
  for (const std::string& event : stream.events()) {
    if (event == "[DONE]") break;
    const json chunk = json::parse(event);
    if (chunk["usage"].is_object()) usage = chunk["usage"];
    if (chunk["choices"].empty()) continue;
    for (const char* key : {"content", "reasoning_content"})
      message[key] = message[key].get<std::string>() + chunk["choices"][0]["delta"].value(key, "");
  }
  return message;
}

TEST(Reasoning, IsNoPartOfAChatsContent) {
  TestServer server(with_marks("<|im_start|>"));
  Client client(server.port());
  const json body = of_form(R"(\[THINK\] six by\nseven \[/THINK\]\n\nit is 42)");
  const Answer whole = client.post("/v1/chat/completions", body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  const json message = whole.json()["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "six by\nseven");
  EXPECT_EQ(message["content"], "it is 42");
  EXPECT_GE(whole.json()["usage"]["completion_tokens_details"]["reasoning_tokens"], 5);
  EXPECT_LT(whole.json()["usage"]["completion_tokens_details"]["reasoning_tokens"],
            whole.json()["usage"]["completion_tokens"]);

  json streamed = body, usage;
  streamed.update({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  const json of_stream = joined(client.post("/v1/chat/completions", streamed), usage);
  EXPECT_EQ(of_stream["reasoning_content"], message["reasoning_content"]);
  EXPECT_EQ(of_stream["content"], message["content"]);
  EXPECT_EQ(usage, whole.json()["usage"]);

  json without = body;
  without["include_reasoning"] = false;
  const json shown = client.post("/v1/chat/completions", without).json()["choices"][0]["message"];
  EXPECT_FALSE(shown.contains("reasoning_content"));
  EXPECT_EQ(shown["content"], "it is 42");
}

TEST(Reasoning, OfAResponseIsAnItem) {
  TestServer server(with_marks("<|im_start|>"));
  Client client(server.port());
  json body = of_form(R"(\[THINK\]six by seven\[/THINK\]42)");
  body["input"] = "it is";
  body["max_output_tokens"] = 200;
  const Answer whole = client.post("/v1/responses", body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  const json output = whole.json()["output"];
  ASSERT_EQ(output.size(), 2u) << output;
  EXPECT_EQ(output[0]["type"], "reasoning");
  EXPECT_EQ(output[0]["content"][0]["text"], "six by seven");
  EXPECT_EQ(output[1]["content"][0]["text"], "42");
  EXPECT_GT(whole.json()["usage"]["output_tokens_details"]["reasoning_tokens"], 0);

  body["stream"] = true;
  std::string text;
  for (const std::string& event : client.post("/v1/responses", body).events()) {
    const json data = json::parse(event);
    if (data["type"] == "response.reasoning_text.delta") text += data["delta"];
    if (data["type"] == "response.completed") {
      EXPECT_EQ(data["response"]["output"][0]["content"], output[0]["content"]);
    }
  }
  EXPECT_EQ(text, "six by seven");
}

// The prompt begins a thought, whose text is free; the form is that of what comes after it.
TEST(Reasoning, AFormIsThatOfTheAnswerBehindIt) {
  TestServer server(with_marks("<|im_start|>[THINK]\n"));
  Client client(server.port());
  size_t thoughts = 0;
  for (int seed = 0; seed < 12; ++seed) {
    const json body = of_form("(it|is)+ [0-9]{2}", {{"seed", seed}, {"logit_bias", {{"0", 4}}}});
    const Answer whole = client.post("/v1/chat/completions", body);
    ASSERT_EQ(whole.status, 200) << whole.body;
    const json choice = whole.json()["choices"][0];
    if (choice["finish_reason"] == "length") continue;
    const std::string content = choice["message"]["content"];
    EXPECT_TRUE(content.starts_with("i") && content.size() >= 5 && std::isdigit(content.back())) << choice;
    EXPECT_EQ(content.find("[/THINK]"), std::string::npos);
    thoughts += choice["message"].contains("reasoning_content") ? 1 : 0;
  }
  EXPECT_GT(thoughts, 3u);
}

TEST(Reasoning, OfEarlierTurnsGoesToTheTemplate) {
  TestServer server(with_marks("<|im_start|>"));
  Client client(server.port());
  const auto tokens = [&](const json& message) {
    return client.post("/tokenize", json{{"messages", {message}}}).json()["count"].get<int>();
  };
  const json without{{"role", "assistant"}, {"content", "it is"}};
  for (const char* key : {"reasoning_content", "reasoning"}) {
    json with = without;
    with[key] = "is";
    EXPECT_GT(tokens(with), tokens(without)) << key;
  }
  const Answer wrong = client.post("/v1/chat/completions",
                                   chat({{"messages", {{{"role", "assistant"}, {"content", ""}, {"reasoning", 5}}}}}));
  EXPECT_EQ(wrong.status, 400);
}

TEST(Reasoning, EffortIsTheTemplatesVariable) {
  TestServerOptions options;
  options.chat_template =
      "{% for m in messages %}{{ m.content }}{% endfor %}"
      "{% if enable_thinking %}is{% endif %}{{ reasoning_effort }}<|im_start|>";
  TestServer server(options);
  Client client(server.port());
  const auto prompt_tokens = [&](const json& more) {
    return client.post("/v1/chat/completions", chat(more)).json()["usage"]["prompt_tokens"].get<int>();
  };
  const int without = prompt_tokens(json::object());
  const json effort{{"reasoning_effort", "it"}};
  json kwargs = effort;
  kwargs["chat_template_kwargs"] = {{"enable_thinking", false}};
  EXPECT_GT(prompt_tokens(effort), prompt_tokens(kwargs));
  EXPECT_GT(prompt_tokens(kwargs), without);
  kwargs["chat_template_kwargs"] = {{"enable_thinking", false}, {"reasoning_effort", ""}};
  EXPECT_EQ(prompt_tokens(kwargs), without);
  // "none" asks for no thoughts; its letters are tokens that the tiny model lacks.
  kwargs = {{"reasoning_effort", "none"}, {"chat_template_kwargs", {{"reasoning_effort", ""}}}};
  EXPECT_EQ(prompt_tokens(kwargs), without);
}

}  // namespace
}  // namespace lathe::http
