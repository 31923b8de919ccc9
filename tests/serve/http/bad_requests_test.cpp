// Whatever a client sends gets a sentence and a status, and the next good request works.
#include <fmt/format.h>

#include <chrono>

#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

class BadRequests : public testing::Test {
 protected:
  void expect_works() {
    Client client(server_.port());
    const Answer answer = client.post("/v1/chat/completions", chat());
    ASSERT_EQ(answer.status, 200) << answer.body;
    ASSERT_EQ(answer.json()["usage"]["completion_tokens"], 12);
  }
  // An error of OpenAI's shape that names the field.
  void refused(const char* path, const std::string& body, const std::string& param, int status = 400) {
    Client client(server_.port());
    const Answer answer = client.post(path, std::string_view(body));
    EXPECT_EQ(answer.status, status) << path << " " << body.substr(0, 200) << "\n" << answer.body;
    const json error = answer.json()["error"];
    EXPECT_TRUE(error.is_object() && error["message"].is_string() && error["type"].is_string()) << answer.body;
    if (!param.empty()) {
      EXPECT_EQ(error["param"], param) << answer.body;
    }
    expect_works();
  }
  void chat_refused(const json& more, const std::string& param, int status = 400) {
    refused("/v1/chat/completions", chat(more).dump(), param, status);
  }
  void completion_refused(const json& more, const std::string& param, int status = 400) {
    refused("/v1/completions", completion(more).dump(), param, status);
  }

  TestServer server_;
};

TEST_F(BadRequests, MessagesThatAreNone) {
  chat_refused({{"messages", nullptr}}, "messages");
  chat_refused({{"messages", "hello"}}, "messages");
  chat_refused({{"messages", json::array()}}, "messages");
  chat_refused({{"messages", {123}}}, "messages[0]");
  chat_refused({{"messages", {json::object()}}}, "messages[0].role");
  chat_refused({{"messages", {{{"role", 7}, {"content", "a"}}}}}, "messages[0].role");
  chat_refused({{"messages", {{{"role", "king"}, {"content", "a"}}}}}, "messages[0].role");
  chat_refused({{"messages", {{{"role", "user"}, {"content", 7}}}}}, "messages[0].content");
  chat_refused({{"messages", {{{"role", "user"}}}}}, "messages[0].content");
  chat_refused({{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}}, "messages[0].content[0]");
}

TEST_F(BadRequests, NumbersOutOfTheirRange) {
  for (const auto& [field, value] :
       std::vector<std::pair<const char*, json>>{{"n", 0},
                                                 {"n", -1},
                                                 {"n", 1'000'000'000},
                                                 {"n", 1.5},
                                                 {"n", "2"},
                                                 {"max_tokens", 0},
                                                 {"max_tokens", -4},
                                                 {"max_tokens", int64_t{1} << 60},
                                                 {"temperature", -1},
                                                 {"temperature", "hot"},
                                                 {"temperature", true},
                                                 {"top_p", 0},
                                                 {"top_p", 1.1},
                                                 {"top_k", -2},
                                                 {"min_p", 2},
                                                 {"presence_penalty", 3},
                                                 {"frequency_penalty", -3},
                                                 {"repetition_penalty", 0},
                                                 {"seed", 1.5},
                                                 {"top_logprobs", 3},
                                                 {"min_tokens", -1},
                                                 {"stop", ""},
                                                 {"stop", 5},
                                                 {"stop", {"a", 5}},
                                                 {"stop", std::string(5000, 'a')},
                                                 {"stop_token_ids", {-1}},
                                                 {"stop_token_ids", {99999}},
                                                 {"logit_bias", {{"a", 1}}},
                                                 {"logit_bias", {{"99999", 1}}},
                                                 {"logit_bias", {{"5", 1000}}},
                                                 {"logit_bias", {5}},
                                                 {"stream", "yes"},
                                                 {"stream_options", {{"include_usage", true}}},
                                                 {"logprobs", 5},
                                                 {"response_format", {{"type", "xml"}}},
                                                 {"chat_template_kwargs", 5},
                                                 {"model", 5}})
    chat_refused({{field, value}}, field);
  chat_refused({{"logprobs", true}, {"top_logprobs", 21}}, "top_logprobs");
  completion_refused({{"logprobs", 21}}, "logprobs");
  completion_refused({{"best_of", 3}}, "best_of");
}

TEST_F(BadRequests, FormsThatAreNone) {
  const auto refused_form = [&](const char* field, const json& value) {
    chat_refused({{field, value}, {"ignore_eos", false}}, field);
  };
  refused_form("response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", 5}}}});
  refused_form("response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", {{"type", "king"}}}}}});
  refused_form("response_format", {{"type", "json_schema"}, {"json_schema", {{"schema", {{"unknownKeyword", 1}}}}}});
  refused_form("guided_json", "{");
  refused_form("guided_regex", "(");
  refused_form("guided_regex", "(a)\\1");
  refused_form("guided_regex", std::string(20'000, 'a'));
  refused_form("guided_choice", json::array());
  chat_refused({{"guided_regex", "a"}, {"guided_choice", {"a"}}, {"ignore_eos", false}}, "guided_json");
  chat_refused({{"response_format", {{"type", "json_object"}}}, {"ignore_eos", true}}, "ignore_eos");
}

// Expressions that take other engines exponential time, or all memory.
TEST_F(BadRequests, ExpressionsThatExplode) {
  for (const char* pattern :
       {"(a+)+b", "(a|aa)*c", "((a{1,500}){1,500}){1,500}", "(.*)(.*)(.*)(.*)(.*)x", "a{1000000000}"}) {
    Client client(server_.port());
    const auto began = std::chrono::steady_clock::now();
    const Answer answer = client.post(
        "/v1/completions", completion({{"guided_regex", pattern}, {"ignore_eos", false}, {"max_tokens", 3}}));
    EXPECT_TRUE(answer.status == 200 || answer.status == 400) << pattern << answer.body;
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20)) << pattern;
    expect_works();
  }
}

TEST_F(BadRequests, StopsThatComeTwiceCountOnce) {
  Client client(server_.port());
  const json once = client.post("/v1/completions", completion({{"stop", {"e", "t"}}})).json();
  const json twice = client.post("/v1/completions", completion({{"stop", {"e", "t", "e", "t", "e"}}})).json();
  EXPECT_EQ(once["choices"], twice["choices"]);
}

TEST_F(BadRequests, ATemplateOfTheRequestIsNotHeard) {
  Client client(server_.port());
  const json plain = client.post("/v1/chat/completions", chat()).json();
  const json other =
      client.post("/v1/chat/completions", chat({{"chat_template", "{% for i in range(9) %}x{% endfor %}"}})).json();
  EXPECT_EQ(other["choices"], plain["choices"]);
  chat_refused({{"chat_template_kwargs", {5}}}, "chat_template_kwargs");
}

TEST_F(BadRequests, OfTheSmallerEndpoints) {
  for (const char* body : {"{}", "{\"input\": null}", "{\"input\": [[]]}", "{\"input\": [\"\"]}", "{\"input\": [1e9]}"})
    refused("/v1/embeddings", body, "input");
  refused("/v1/embeddings", R"({"input": "a", "model": "gpt-7"})", "model", 404);
  for (const char* body : {"{}", R"({"prompt": 5})"}) refused("/tokenize", body, "prompt");
  refused("/tokenize", R"({"messages": "hello"})", "messages");
  for (const char* body : {"{}", R"({"tokens": "1"})", R"({"tokens": [-1]})", R"({"tokens": [99999]})"})
    refused("/detokenize", body, "tokens");
  for (const char* body : {"{}", R"({"lora_name": ""})", R"({"lora_name": 5})"})
    refused("/v1/load_lora_adapter", body, "lora_name");
  refused("/v1/load_lora_adapter", R"({"lora_name": "a", "lora_path": 5})", "lora_path");
  refused("/v1/unload_lora_adapter", R"({"lora_name": "nobody"})", "lora_name", 404);
}

TEST_F(BadRequests, NumbersThatAreNone) {
  for (const char* number : {"NaN", "Infinity", "-Infinity", "1e400", "123456789012345678901"})
    refused("/v1/completions", fmt::format(R"({{"prompt": "a", "temperature": {}}})", number), "");
}

TEST_F(BadRequests, PromptsThatAreNone) {
  for (const json& prompt : {json(nullptr), json(""), json(json::array()), json(5), json({""}), json({{}}),
                             json({{1, 2}, "a", 5}), json({-1}), json({1, 99999}), json({1.5}), json::object()})
    completion_refused({{"prompt", prompt}}, "prompt");
  completion_refused({{"prompt", std::vector<std::string>(300, "a")}}, "prompt");
  completion_refused({{"prompt", {"a", "b", "c"}}, {"n", 128}}, "n");
}

TEST_F(BadRequests, ATextWhoseTokensTheModelLacks) { completion_refused({{"prompt", "<think>"}}, "prompt"); }

TEST_F(BadRequests, APromptBeyondTheContext) {
  completion_refused({{"prompt", std::string(20000, 'a')}}, "prompt");
  chat_refused({{"max_tokens", 5000}}, "max_tokens");
  Client client(server_.port());
  const Answer answer = client.post("/v1/completions", completion({{"max_tokens", 5000}}));
  EXPECT_EQ(answer.json()["error"]["code"], "context_length_exceeded");
}

TEST_F(BadRequests, BodiesThatAreNoJson) {
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("\"a\""),
        std::string("{\"prompt\": \"\xff\xfe\"}"), std::string("{\"prompt\": \"\\ud800\"}"), std::string(60'000, '['),
        "{\"prompt\": " + std::string(60'000, '[') + std::string(60'000, ']') + "}", std::string("{\"a\0\": 1}", 10)})
    refused("/v1/completions", body, "");
}

TEST_F(BadRequests, UnknownModelsPathsAndMethods) {
  chat_refused({{"model", "gpt-7"}}, "model", 404);
  Client client(server_.port());
  EXPECT_EQ(client.get("/nowhere").status, 404);
  EXPECT_EQ(client.get("/v1/chat/completions").status, 405);
  EXPECT_EQ(client.post("/v1/models", json::object()).status, 405);
  for (const auto& [path, allowed] : std::vector<std::pair<const char*, const char*>>{
           {"/v1/chat/completions", "POST"}, {"/v1/models/tiny", "GET"}, {"/health", "GET"}, {"/", "GET, POST"}}) {
    client.ask("DELETE", path, "");
    const Answer answer = client.answer();
    EXPECT_EQ(answer.status, 405) << path;
    EXPECT_EQ(answer.header("allow"), allowed) << path;
  }
  EXPECT_EQ(client.get("/v1/models/gpt-7").status, 404);
  EXPECT_EQ(client.get("/v1/models/tiny").status, 200);
}

TEST_F(BadRequests, FieldsThatNobodyKnowsAreLeftAlone) {
  Client client(server_.port());
  const Answer plain = client.post("/v1/chat/completions", chat());
  const Answer more = client.post("/v1/chat/completions",
                                  chat({{"user", "me"}, {"store", true}, {"x", {{"y", 1}}}, {"stop", nullptr}}));
  EXPECT_EQ(more.json()["choices"], plain.json()["choices"]);
}

TEST_F(BadRequests, WhatIsNoHttp) {
  for (const std::string& bytes :
       {std::string("hello\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"), std::string("\x16\x03\x01\x02\x00\x01"),
        std::string("POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")}) {
    Client client(server_.port());
    client.send(bytes);
    EXPECT_EQ(client.answer().status, 400) << bytes;
    EXPECT_TRUE(client.ended());
    expect_works();
  }
}

TEST_F(BadRequests, HeadersAndBodiesBeyondTheLimits) {
  Client big_header(server_.port());
  big_header.send("GET /health HTTP/1.1\r\nX: " + std::string(100'000, 'a'));
  EXPECT_EQ(big_header.answer().status, 431);
  Client big_body(server_.port());
  big_body.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n{");
  EXPECT_EQ(big_body.answer().status, 413);
  Client endless(server_.port());
  endless.send("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 100; ++i) endless.send("20000\r\n" + std::string(0x20000, ' ') + "\r\n");
  EXPECT_EQ(endless.answer().status, 413);
  expect_works();
}

TEST_F(BadRequests, TgiSaysItInItsOwnShape) {
  Client client(server_.port());
  for (const json& body : {json{{"inputs", ""}}, json{{"inputs", 5}}, json{{"inputs", "a"}, {"parameters", 5}},
                           json{{"inputs", "a"}, {"parameters", {{"max_new_tokens", 0}}}},
                           json{{"inputs", "a"}, {"parameters", {{"grammar", {{"type", "yaml"}, {"value", "a"}}}}}}}) {
    const Answer answer = client.post("/generate", body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_TRUE(answer.json()["error"].is_string()) << answer.body;
    EXPECT_EQ(answer.json()["error_type"], "validation");
  }
  expect_works();
}

TEST(BadRequestsOfAModelWithoutATemplate, AreToldSo) {
  TestServerOptions options;
  options.with_template = false;
  TestServer server(options);
  Client client(server.port());
  const Answer answer = client.post("/v1/chat/completions", chat());
  EXPECT_EQ(answer.status, 400);
  EXPECT_NE(answer.body.find("no chat template"), std::string::npos);
  EXPECT_EQ(client.post("/v1/completions", completion()).status, 200);
}

}  // namespace
}  // namespace lathe::http
