// /v1/responses: answers whole and as events, calls of functions, and what of the API is not here.
#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

constexpr const char* path = "/v1/responses";

json asking(const json& more = json::object()) {
  json body{{"input", "it is"}, {"temperature", 0}, {"max_output_tokens", 12}, {"ignore_eos", true}};
  body.update(more);
  return body;
}

std::string text_of(const json& response) {
  std::string text;
  for (const json& item : response["output"])
    if (item["type"] == "message") text += item["content"][0]["text"].get<std::string>();
  return text;
}

// What a client has built from a stream's events, each held to the order that the API promises.
class Built {
 public:
  explicit Built(const Answer& stream) {
    int64_t number = 0;
    for (const std::string& text : stream.events()) {
      const json event = json::parse(text);
      EXPECT_EQ(event["sequence_number"], number++) << text;
      EXPECT_TRUE(stream.body.find("event: " + event["type"].get<std::string>() + "\ndata: " + text) !=
                  std::string::npos);
      take(event, event["type"]);
    }
  }
  json output = json::array(), response;
  std::vector<std::string> types;

 private:
  void take(const json& event, const std::string& type) {
    types.push_back(type);
    EXPECT_TRUE(response.is_null()) << "nothing comes after the end: " << event;
    if (type == "response.completed" || type == "response.incomplete") response = event["response"];
    if (!event.contains("output_index")) return;
    const size_t index = event["output_index"];
    if (type == "response.output_item.added") {
      EXPECT_EQ(index, output.size());
      EXPECT_TRUE(output.empty() || output.back()["status"] == "completed") << "one item grows at a time";
      output.push_back(event["item"]);
      return;
    }
    ASSERT_EQ(index + 1, output.size()) << event;
    json& item = output[index];
    if (event.contains("item_id")) {
      EXPECT_EQ(event["item_id"], item["id"]);
    }
    if (type == "response.content_part.added") item["content"].push_back(event["part"]);
    if (type == "response.output_text.delta") {
      json& part = item["content"][0];
      grow(part["text"], event["delta"]);
      for (const json& token : event["logprobs"]) part["logprobs"].push_back(token);
    }
    if (type == "response.function_call_arguments.delta") grow(item["arguments"], event["delta"]);
    if (type == "response.output_text.done") {
      EXPECT_EQ(event["text"], item["content"][0]["text"]);
    }
    if (type == "response.function_call_arguments.done") {
      EXPECT_EQ(event["arguments"], item["arguments"]);
    }
    if (type == "response.output_item.done") {
      item["status"] = event["item"]["status"];
      EXPECT_EQ(item, event["item"]);
    }
  }
  static void grow(json& text, const json& delta) { text = text.get<std::string>() + delta.get<std::string>(); }
};

TEST(Responses, AnswersAsChatDoes) {
  TestServer server;
  Client client(server.port());
  const json response = client.post(path, asking({{"instructions", "it"}})).json();
  const json chat_answer =
      client
          .post(
              "/v1/chat/completions",
              chat({{"messages", {{{"role", "system"}, {"content", "it"}}, {{"role", "user"}, {"content", "it is"}}}}}))
          .json();
  EXPECT_EQ(text_of(response), chat_answer["choices"][0]["message"]["content"]);
  EXPECT_EQ(response["usage"]["input_tokens"], chat_answer["usage"]["prompt_tokens"]);
  EXPECT_EQ(response["usage"]["output_tokens"], 12);
  EXPECT_EQ(response["status"], "incomplete");
  EXPECT_EQ(response["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(response["object"], "response");
  EXPECT_EQ(response["model"], "tiny");
  EXPECT_EQ(response["instructions"], "it");
  EXPECT_TRUE(response["id"].get<std::string>().starts_with("resp_"));
}

TEST(Responses, AStreamBuildsTheWholeResponse) {
  TestServer server;
  Client client(server.port());
  for (const json& more :
       {json::object(), json{{"include", {"message.output_text.logprobs"}}, {"top_logprobs", 2}},
        json{{"temperature", 1.5}, {"seed", 3}, {"max_output_tokens", 60}},
        json{{"ignore_eos", false}, {"text", {{"format", {{"type", "json_object"}}}}}, {"max_output_tokens", 600}}}) {
    const json whole = client.post(path, asking(more)).json();
    json streamed = asking(more);
    streamed["stream"] = true;
    const Built built(client.post(path, streamed));
    ASSERT_FALSE(built.response.is_null()) << more;
    EXPECT_EQ(built.types[0], "response.created");
    EXPECT_EQ(built.types[1], "response.in_progress");
    EXPECT_EQ(built.output, built.response["output"]);
    EXPECT_EQ(text_of(built.response), text_of(whole)) << more;
    EXPECT_EQ(built.response["status"], whole["status"]) << more;
    EXPECT_EQ(built.response["usage"]["output_tokens"], whole["usage"]["output_tokens"]) << more;
    const json &here = built.output[0]["content"][0], &there = whole["output"][0]["content"][0];
    EXPECT_EQ(here.contains("logprobs"), more.contains("include"));
    if (more.contains("include")) {
      EXPECT_EQ(here["logprobs"], there["logprobs"]);
      EXPECT_EQ(here["logprobs"].size(), 12u);
    }
  }
}

constexpr const char* turns =
    "{% if tools %}<|im_start|>{% for t in tools %}{{ t.function.name }};{% endfor %}<|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}={{ c.function.arguments.size }};{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}{# <tool_call> #}";

const json size_tool{
    {"type", "function"},
    {"name", "f"},
    {"parameters", {{"type", "object"}, {"properties", {{"size", {{"enum", {"s", "m"}}}}}}, {"required", {"size"}}}}};

TEST(Responses, CallsAreItemsOfTheirOwnAndGoBackAsInput) {
  TestServerOptions options;
  options.chat_template = turns;
  TestServer server(options);
  Client client(server.port());
  const json body = asking({{"tools", {size_tool}},
                            {"tool_choice", {{"type", "function"}, {"name", "f"}}},
                            {"max_output_tokens", 400},
                            {"temperature", 1},
                            {"seed", 5},
                            {"ignore_eos", false}});
  const json whole = client.post(path, body).json();
  ASSERT_EQ(whole["status"], "completed") << whole;
  ASSERT_EQ(whole["output"].size(), 1u) << whole;
  const json call = whole["output"][0];
  EXPECT_EQ(call["type"], "function_call");
  EXPECT_EQ(call["name"], "f");
  const json arguments = json::parse(call["arguments"].get<std::string>());
  EXPECT_TRUE(arguments["size"] == "s" || arguments["size"] == "m");
  json streamed = body;
  streamed["stream"] = true;
  const Built built(client.post(path, streamed));
  EXPECT_EQ(built.output, built.response["output"]);
  EXPECT_EQ(built.output[0]["arguments"], call["arguments"]);

  const json history{{{"role", "user"}, {"content", "it is"}},
                     {{"type", "reasoning"}, {"summary", json::array()}},
                     call,
                     {{"type", "function_call_output"}, {"call_id", call["call_id"]}, {"output", "so"}}};
  const json next = client.post(path, asking({{"tools", {size_tool}}, {"input", history}})).json();
  const json same =
      client
          .post(
              "/v1/chat/completions",
              chat(
                  {{"tools", {{{"type", "function"}, {"function", {{"name", "f"}}}}}},
                   {"messages",
                    {{{"role", "user"}, {"content", "it is"}},
                     {{"role", "assistant"},
                      {"tool_calls", {{{"id", "c"}, {"function", {{"name", "f"}, {"arguments", call["arguments"]}}}}}}},
                     {{"role", "tool"}, {"tool_call_id", "c"}, {"content", "so"}}}}}))
          .json();
  ASSERT_TRUE(next.contains("usage") && same.contains("usage")) << next << same;
  EXPECT_EQ(next["usage"]["input_tokens"], same["usage"]["prompt_tokens"]) << next << same;
}

TEST(Responses, WhatIsWrongOrNotHereIsNamed) {
  TestServer server;
  Client client(server.port());
  const std::vector<std::pair<json, std::string>> wrong{
      {{{"input", nullptr}}, "input"},
      {{{"input", json::array()}}, "input"},
      {{{"input", {{{"type", "item_reference"}, {"id", "x"}}}}}, "input[0].type"},
      {{{"input", {{{"role", "user"}, {"content", {{{"type", "input_image"}, {"image_url", "http://x"}}}}}}}},
       "input[0].content[0]"},
      {{{"input", {{{"type", "function_call"}, {"call_id", "c"}, {"name", "f"}, {"arguments", "{"}}}}},
       "input[0].arguments"},
      {{{"input", {{{"type", "function_call_output"}, {"output", "so"}}}}}, "input[0].call_id"},
      {{{"previous_response_id", "resp_1"}}, "previous_response_id"},
      {{{"conversation", "conv_1"}}, "conversation"},
      {{{"background", true}}, "background"},
      {{{"truncation", "auto"}}, "truncation"},
      {{{"tools", {{{"type", "web_search"}}}}}, "tools[0].type"},
      {{{"tools", {{{"type", "function"}, {"name", "a b"}}}}}, "tools[0].name"},
      {{{"text", {{"format", {{"type", "xml"}}}}}}, "text.format"},
      {{{"text", {{"format", {{"type", "json_schema"}, {"name", "n"}}}}}}, "text.format.schema"},
      {{{"n", 2}}, "n"},
      {{{"include", "all"}}, "include"},
      {{{"metadata", 3}}, "metadata"}};
  for (const auto& [more, param] : wrong) {
    const Answer answer = client.post(path, asking(more));
    EXPECT_EQ(answer.status, 400) << more << answer.body;
    EXPECT_EQ(answer.json()["error"]["param"], param) << answer.body;
  }
  EXPECT_EQ(client.post(path, asking({{"model", "other"}})).status, 404);
  EXPECT_EQ(client.post(path, asking()).status, 200) << "the next good request works";
}

}  // namespace
}  // namespace lathe::http
