// Tool calls over HTTP: what templates are given, what answers may be, how they are told.
#include <fmt/format.h>

#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

// What a template shows of tools and calls, in letters that the tiny model's tokens spell.
constexpr const char* turns =
    "{% if tools %}<|im_start|>{% for t in tools %}{{ t.function.name }};{% endfor %}<|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}={{ c.function.arguments | tojson }};{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}";

TestServerOptions with_marks(const std::string& mark) {
  TestServerOptions options;
  options.chat_template = std::string(turns) + "{# " + mark + " #}";
  return options;
}

json tool(const char* name, const json& parameters) {
  return {{"type", "function"}, {"function", {{"name", name}, {"parameters", parameters}}}};
}
const json size_tool = tool("f", {{"type", "object"},
                                  {"properties", {{"size", {{"enum", {"s", "m"}}}}, {"many", {{"type", "boolean"}}}}},
                                  {"required", {"size", "many"}}});
const json count_tool = tool("g2", {{"type", "object"},
                                    {"properties", {{"n", {{"$ref", "#/$defs/count"}}}}},
                                    {"required", {"n"}},
                                    {"$defs", {{"count", {{"type", "integer"}, {"minimum", 3}, {"maximum", 12}}}}}});

json asking(const json& more) {
  json body =
      chat({{"tools", {size_tool, count_tool}}, {"temperature", 1}, {"max_tokens", 2000}, {"ignore_eos", false}});
  body.update(more);
  return body;
}

void expect_valid(const json& call) {
  EXPECT_EQ(call["type"], "function") << call;
  const json arguments = json::parse(call["function"]["arguments"].get<std::string>(), nullptr, false);
  ASSERT_TRUE(arguments.is_object()) << call;
  if (call["function"]["name"] == "f") {
    EXPECT_EQ(arguments.size(), 2u) << call;
    EXPECT_TRUE(arguments["size"] == "s" || arguments["size"] == "m") << call;
    EXPECT_TRUE(arguments["many"].is_boolean()) << call;
  } else {
    EXPECT_EQ(call["function"]["name"], "g2");
    EXPECT_EQ(arguments.size(), 1u) << call;
    EXPECT_TRUE(arguments["n"].is_number_integer() && arguments["n"] >= 3 && arguments["n"] <= 12) << call;
  }
}

// The message of a stream, put together as OpenAI's clients do.
json joined(const Answer& stream, std::string& end) {
  json message{{"content", ""}, {"tool_calls", json::array()}};
  for (const std::string& event : stream.events()) {
    if (event == "[DONE]") break;
    const json choice = json::parse(event)["choices"][0];
    if (choice["finish_reason"].is_string()) {
      EXPECT_TRUE(choice["delta"].empty()) << event;
      end = choice["finish_reason"];
    }
    EXPECT_TRUE(choice["finish_reason"].is_string() || end.empty()) << "nothing comes after the end";
    message["content"] = message["content"].get<std::string>() + choice["delta"].value("content", "");
    for (const json& delta : choice["delta"].value("tool_calls", json::array())) {
      const size_t index = delta["index"];
      if (index == message["tool_calls"].size()) {
        message["tool_calls"].push_back(delta);
        continue;
      }
      EXPECT_EQ(index + 1, message["tool_calls"].size());
      EXPECT_FALSE(delta.contains("id")) << event;
      json& arguments = message["tool_calls"][index]["function"]["arguments"];
      arguments = arguments.get<std::string>() + delta["function"]["arguments"].get<std::string>();
    }
  }
  return message;
}

class ToolCalls : public testing::TestWithParam<const char*> {
 protected:
  TestServer server_{with_marks(GetParam())};
};
INSTANTIATE_TEST_SUITE_P(Formats, ToolCalls,
                         testing::Values("<tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[TOOL_CALLS] [ARGS]",
                                         "<function=", "<tool_call> <function= <parameter=", "<tool_call> <arg_key>",
                                         "<｜tool▁calls▁begin｜> ```json", "<｜tool▁calls▁begin｜>", "<|channel|>"));

TEST_P(ToolCalls, RequiredCallsAreAlwaysValidAndAStreamTellsTheSame) {
  Client client(server_.port());
  for (int seed = 0; seed < 6; ++seed) {
    const json body = asking({{"tool_choice", "required"}, {"seed", seed}});
    const Answer whole = client.post("/v1/chat/completions", body);
    ASSERT_EQ(whole.status, 200) << whole.body;
    const json choice = whole.json()["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
    EXPECT_TRUE(choice["message"]["content"].is_null()) << choice;
    ASSERT_FALSE(choice["message"]["tool_calls"].empty());
    for (const json& call : choice["message"]["tool_calls"]) expect_valid(call);
    json streamed = body;
    streamed["stream"] = true;
    std::string end;
    const json message = joined(client.post("/v1/chat/completions", streamed), end);
    EXPECT_EQ(end, "tool_calls");
    EXPECT_EQ(message["content"], "");
    ASSERT_EQ(message["tool_calls"].size(), choice["message"]["tool_calls"].size());
    for (size_t i = 0; i < message["tool_calls"].size(); ++i)
      EXPECT_EQ(message["tool_calls"][i]["function"], choice["message"]["tool_calls"][i]["function"]);
  }
}

TEST_P(ToolCalls, ANamedFunctionIsCalledOnce) {
  Client client(server_.port());
  const json choice_of{{"type", "function"}, {"function", {{"name", "g2"}}}};
  const json answer =
      client.post("/v1/chat/completions", asking({{"tool_choice", choice_of}, {"n", 3}, {"seed", 1}})).json();
  for (const json& choice : answer["choices"]) {
    ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u) << choice;
    EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "g2");
    expect_valid(choice["message"]["tool_calls"][0]);
  }
}

TEST(ToolCallsOfHermes, AModelThatMayCallMayAlsoTalk) {
  TestServer server(with_marks("<tool_call>"));
  Client client(server.port());
  const std::string call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"size\": \"s\"}}\n</tool_call>";
  const auto message = [&](const json& more) {
    const Answer answer = client.post("/v1/chat/completions", asking(more));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json()["choices"][0];
  };
  // What the model would say is decided by a grammar; the parser does not know.
  const json called = message({{"guided_choice", {"it is " + call + "\n" + call}}});
  EXPECT_EQ(called["message"]["content"], "it is");
  EXPECT_EQ(called["message"]["tool_calls"].size(), 2u);
  EXPECT_EQ(called["finish_reason"], "tool_calls");
  const json once = message({{"guided_choice", {call + "\n" + call}}, {"parallel_tool_calls", false}});
  EXPECT_EQ(once["message"]["tool_calls"].size(), 1u);
  const json talked = message({{"guided_choice", {"it is"}}});
  EXPECT_EQ(talked["message"]["content"], "it is");
  EXPECT_FALSE(talked["message"].contains("tool_calls"));
  EXPECT_EQ(talked["finish_reason"], "stop");
  const json forbidden = message({{"guided_choice", {call}}, {"tool_choice", "none"}});
  EXPECT_EQ(forbidden["message"]["content"], call);
}

TEST(ToolCallsOneByOne, StringsAreWrittenAsTheyAreAndEndAtTheirMark) {
  TestServer server(with_marks("<tool_call> <function= <parameter="));
  Client client(server.port());
  const json text_tool =
      tool("f", {{"type", "object"},
                 {"properties",
                  {{"text", {{"$ref", "#/$defs/text"}}},
                   {"list", {{"type", "array"}, {"items", {{"type", "boolean"}}}, {"maxItems", 2}}}}},
                 {"required", {"list"}},
                 {"$defs", {{"text", {{"type", "string"}}}}}});
  for (int seed = 0; seed < 4; ++seed) {
    const json body =
        asking({{"tools", {text_tool}}, {"tool_choice", "required"}, {"seed", seed}, {"max_tokens", 300}});
    const json choice = client.post("/v1/chat/completions", body).json()["choices"][0];
    if (choice["finish_reason"] == "length") continue;  // a text without an end
    for (const json& call : choice["message"]["tool_calls"]) {
      const json arguments = json::parse(call["function"]["arguments"].get<std::string>());
      EXPECT_TRUE(arguments["list"].is_array()) << call;
      if (!arguments.contains("text")) continue;
      EXPECT_TRUE(arguments["text"].is_string()) << call;
      EXPECT_EQ(arguments["text"].get<std::string>().find("</parameter>"), std::string::npos);
    }
  }
  const auto refused = [&](const json& schema) {
    const json body = asking({{"tools", {tool("f", schema)}}, {"tool_choice", "required"}});
    const Answer answer = client.post("/v1/chat/completions", body);
    EXPECT_EQ(answer.status, 400) << schema << answer.body;
    EXPECT_EQ(answer.json()["error"]["param"], "tools");
    EXPECT_EQ(client.post("/v1/chat/completions", chat()).status, 200) << "the next good request works";
  };
  refused({{"type", "object"}, {"properties", {{"a", {{"type", "string"}, {"pattern", "a+"}}}}}});
  refused({{"type", "object"}, {"properties", {{"a>", {{"type", "string"}}}}}});
  refused({{"type", "object"}, {"properties", {{"a", {{"enum", {"</parameter>"}}}}}}});
  refused({{"anyOf", {{{"type", "object"}}}}});
  refused({{"type", "object"}, {"properties", json::object()}, {"required", {"b"}}});
}

TEST(ToolCallsOfMistral, AMarkWithinACallMayBeAControlToken) {
  TestServerOptions options = with_marks("[TOOL_CALLS] [ARGS]");
  options.renamed_token = {"<|endoftext|>", "[ARGS]"};
  TestServer server(options);
  Client client(server.port());
  const json forced =
      client.post("/v1/chat/completions", asking({{"tool_choice", "required"}, {"seed", 2}, {"logprobs", true}}))
          .json();
  const json& choice = forced["choices"][0];
  ASSERT_FALSE(choice["message"]["tool_calls"].empty()) << forced;
  for (const json& call : choice["message"]["tool_calls"]) expect_valid(call);
  size_t marks = 0;
  for (const json& token : choice["logprobs"]["content"]) marks += token["token"] == "[ARGS]";
  EXPECT_EQ(marks, choice["message"]["tool_calls"].size()) << "each was the token, not its letters";
  const json other = client
                         .post("/v1/chat/completions",
                               chat({{"guided_regex", "\\[ARGS\\]"}, {"logprobs", true}, {"ignore_eos", false}}))
                         .json();
  EXPECT_EQ(other["choices"][0]["message"]["content"], "[ARGS]");
  EXPECT_GT(other["choices"][0]["logprobs"]["content"].size(), 1u) << "text is never a control token";
}

TEST(ToolCallsOfMistral, TheMarkIsAControlTokenThatIsSeenAndForced) {
  TestServerOptions options = with_marks("[TOOL_CALLS]");
  options.renamed_token = {"<|endoftext|>", "[TOOL_CALLS]"};
  TestServer server(options);
  Client client(server.port());
  const json forced = client.post("/v1/chat/completions", asking({{"tool_choice", "required"}, {"seed", 2}})).json();
  const json& calls = forced["choices"][0]["message"]["tool_calls"];
  ASSERT_FALSE(calls.empty()) << forced;
  for (const json& call : calls) expect_valid(call);
  EXPECT_EQ(calls[0]["id"].get<std::string>().size(), 9u);
  const json free = client.post("/v1/chat/completions", asking(json::object())).json();
  EXPECT_EQ(forced["usage"]["prompt_tokens"].get<int>(), free["usage"]["prompt_tokens"].get<int>());
  const json marked = asking({{"logit_bias", {{"0", 100}}}, {"max_tokens", 2}, {"ignore_eos", true}});
  EXPECT_EQ(client.post("/v1/chat/completions", marked).json()["choices"][0]["message"]["content"],
            "[TOOL_CALLS][TOOL_CALLS]");
}

TEST(ToolMessages, CallsAndAnswersReachTheTemplate) {
  TestServer server(with_marks("<tool_call>"));
  Client client(server.port());
  const json call{
      {"id", "call_1"}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", "{\"a\": [1, 2]}"}}}};
  const json messages{{{"role", "user"}, {"content", "it is"}},
                      {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", {call}}},
                      {{"role", "tool"}, {"tool_call_id", "call_1"}, {"content", "is"}}};
  const json tokens =
      client.post("/tokenize", json{{"messages", messages}, {"tools", {size_tool, count_tool}}}).json()["tokens"];
  EXPECT_EQ(client.post("/detokenize", json{{"tokens", tokens}}).json()["prompt"],
            "<|im_start|>f;g2;<|im_end|><|im_start|>it is<|im_end|><|im_start|>f={\"a\": [1, 2]};<|im_end|>"
            "<|im_start|>is<|im_end|><|im_start|>");
}

TEST(ToolRequests, WhatIsWrongIsRefusedByName) {
  TestServer server(with_marks("<tool_call>"));
  const auto refused = [&](const json& more, const std::string& param) {
    Client client(server.port());
    const Answer answer = client.post("/v1/chat/completions", asking(more));
    EXPECT_EQ(answer.status, 400) << more << answer.body;
    EXPECT_EQ(answer.json()["error"]["param"], param) << more << answer.body;
    EXPECT_EQ(client.post("/v1/chat/completions", chat()).status, 200) << "the next good request works";
  };
  refused({{"tools", "f"}}, "tools");
  refused({{"tools", {5}}}, "tools[0]");
  refused({{"tools", {{{"type", "browser"}}}}}, "tools[0].type");
  refused({{"tools", {{{"type", "function"}}}}}, "tools[0].function");
  refused({{"tools", {tool("", json::object())}}}, "tools[0].function.name");
  refused({{"tools", {tool("a b", json::object())}}}, "tools[0].function.name");
  refused({{"tools", {size_tool, size_tool}}}, "tools[1].function.name");
  refused({{"tools", {tool("f", 5)}}}, "tools[0].function.parameters");
  refused({{"tools", {tool("f", {{"type", "string"}})}}}, "tools[0].function.parameters");
  refused({{"tools", std::vector<json>(200, size_tool)}}, "tools");
  refused({{"tools", {tool("f", {{"unknownKeyword", 1}})}}, {"tool_choice", "required"}}, "tools");
  refused({{"tool_choice", "maybe"}}, "tool_choice");
  refused({{"tool_choice", {{"type", "function"}, {"function", {{"name", "h"}}}}}}, "tool_choice");
  refused({{"tools", nullptr}, {"tool_choice", "required"}}, "tool_choice");
  refused({{"tool_choice", "required"}, {"guided_regex", "a"}}, "tool_choice");
  refused({{"parallel_tool_calls", "no"}}, "parallel_tool_calls");
  refused({{"functions", json::array()}}, "functions");
  const auto message = [](const json& calls) {
    return json{{"messages", {{{"role", "assistant"}, {"tool_calls", calls}}}}};
  };
  refused(message("f"), "messages[0].tool_calls");
  refused(message({5}), "messages[0].tool_calls[0]");
  refused(message({{{"function", {{"name", "f"}, {"arguments", "{"}}}}}),
          "messages[0].tool_calls[0].function.arguments");
  refused(message({{{"function", {{"name", "f"}, {"arguments", "[1]"}}}}}),
          "messages[0].tool_calls[0].function.arguments");
}

TEST(ToolRequests, ATemplateWithoutToolsSaysSo) {
  TestServer server;
  Client client(server.port());
  const Answer answer = client.post("/v1/chat/completions", asking(json::object()));
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json()["error"]["param"], "tools");
  EXPECT_NE(answer.body.find("has no tools"), std::string::npos) << answer.body;
  EXPECT_EQ(client.post("/v1/chat/completions", asking({{"tool_choice", "none"}, {"max_tokens", 5}})).status, 200);
}

}  // namespace
}  // namespace lathe::http
