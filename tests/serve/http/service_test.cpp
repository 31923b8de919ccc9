// What operators rely on: health, keys, limits, adapters, metrics, leaving clients, shutting down.
#include <fmt/format.h>

#include <thread>

#include "nn/weights/peft.h"
#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

std::string file_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

json long_answer(const json& more = json::object()) {
  json body = completion({{"max_tokens", 4000}, {"stream", true}});
  body.update(more);
  return body;
}

// The value of a metric without further labels.
double metric(Client& client, const std::string& name) {
  const std::string text = client.get("/metrics").body, key = "\n" + name + "{model_name=\"tiny\"} ";
  const size_t place = text.find(key);
  EXPECT_NE(place, std::string::npos) << name;
  return place == std::string::npos ? -1 : std::stod(text.substr(place + key.size()));
}

TEST(Health, Is503WhileTheModelLoadsAnd200After) {
  std::promise<void> load;
  TestServerOptions options;
  options.may_load = load.get_future().share();
  TestServer server(options);
  Client client(server.port());
  EXPECT_EQ(client.get("/health").status, 503);
  EXPECT_NE(client.get("/health").body.find("loading"), std::string::npos);
  EXPECT_EQ(client.post("/v1/completions", completion()).status, 503);
  EXPECT_EQ(client.get("/v1/models").status, 200);
  load.set_value();
  server.engine().loaded().get();
  EXPECT_EQ(client.get("/health").status, 200);
  EXPECT_EQ(client.post("/v1/completions", completion()).status, 200);
}

TEST(Health, AStepThatDoesNotEndIs503AndSaysWhy) {
  TestServerOptions options;
  options.limits.stall_seconds = 1e-9;
  TestServer server(options);
  Client asks(server.port()), looks(server.port());
  asks.ask("POST", "/v1/completions", long_answer().dump());
  ASSERT_TRUE(asks.read_until("data: "));
  bool seen = false;
  for (int i = 0; i < 1000 && !seen; ++i) {
    const Answer answer = looks.get("/health");
    seen = answer.status == 503 && answer.body.find("step has been running") != std::string::npos;
  }
  EXPECT_TRUE(seen);
}

TEST(Disconnect, FreesItsPagesWhileStreaming) {
  TestServer server;
  Client leaves(server.port()), stays(server.port());
  leaves.ask("POST", "/v1/completions", long_answer().dump());
  ASSERT_TRUE(leaves.read_until("data: "));
  EXPECT_EQ(server.engine().live_sequences(), 1);
  leaves.leave();
  EXPECT_TRUE(server.becomes_idle());
  EXPECT_EQ(metric(stays, "vllm:num_requests_running"), 0);
  EXPECT_NE(stays.get("/metrics").body.find("finished_reason=\"abort\"} 1"), std::string::npos);
  EXPECT_EQ(stays.post("/v1/completions", completion()).status, 200);
}

TEST(Disconnect, IsNoticedWithoutAStreamAndInTheQueue) {
  TestServerOptions options;
  options.max_sequences = 1;
  TestServer server(options);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<Client>(server.port()));
    clients.back()->ask("POST", "/v1/completions", long_answer({{"stream", false}, {"n", 2}}).dump());
  }
  while (server.engine().live_sequences() < 8) std::this_thread::yield();
  clients.clear();
  EXPECT_TRUE(server.becomes_idle());
}

TEST(Disconnect, OfOneLeavesTheOthersAsTheyWere) {
  TestServer server;
  Client alone(server.port());
  const std::string expected = alone.post("/v1/completions", completion({{"max_tokens", 200}})).body;
  Client stays(server.port()), leaves(server.port());
  leaves.ask("POST", "/v1/completions", long_answer().dump());
  ASSERT_TRUE(leaves.read_until("data: "));
  stays.ask("POST", "/v1/completions", completion({{"max_tokens", 200}}).dump());
  leaves.leave();
  EXPECT_EQ(stays.answer().json()["choices"], json::parse(expected)["choices"]);
}

TEST(Limits, BeyondTheQueueIs429WithRetryAfter) {
  TestServerOptions options;
  options.max_sequences = 1;
  options.limits.max_waiting = 2;
  TestServer server(options);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Client>(server.port()));
    clients.back()->ask("POST", "/v1/completions", long_answer().dump());
    while (server.engine().live_sequences() < i + 1) std::this_thread::yield();
    if (i == 0) {
      ASSERT_TRUE(clients[0]->read_until("\"text\""));
    }
  }
  Client late(server.port());
  const Answer answer = late.post("/v1/completions", completion());
  EXPECT_EQ(answer.status, 429) << answer.body;
  EXPECT_EQ(answer.header("retry-after"), "1");
  EXPECT_EQ(answer.json()["error"]["type"], "rate_limit_error");
  clients.clear();
  EXPECT_TRUE(server.becomes_idle());
  EXPECT_EQ(late.post("/v1/completions", completion()).status, 200);
}

TEST(Limits, AReaderThatDoesNotReadLosesItsStreamAlone) {
  TestServerOptions options;
  options.server.max_stream_bytes = 4096;
  TestServer server(options);
  Client reads(server.port());
  // Beside what the system's buffers take, which is megabytes: many choices with their log-probabilities.
  Client sleeps(server.port());
  sleeps.ask("POST", "/v1/completions", long_answer({{"n", 64}, {"logprobs", 0}}).dump());
  // Without its answer's head the other connection's answer may be there before this one's request is read.
  ASSERT_TRUE(sleeps.read_until("200 OK"));
  EXPECT_EQ(reads.post("/v1/completions", completion()).status, 200);
  EXPECT_TRUE(server.becomes_idle());
  EXPECT_NE(reads.get("/metrics").body.find("finished_reason=\"abort\"} 64"), std::string::npos);
}

TEST(Limits, ARequestThatTricklesInEndsWith408) {
  TestServerOptions options;
  options.server.request_timeout = 0.05;
  TestServer server(options);
  Client slow(server.port());
  slow.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_EQ(slow.answer().status, 408);
  EXPECT_TRUE(slow.ended());
  Client client(server.port());
  EXPECT_EQ(client.post("/v1/completions", completion()).status, 200);
}

TEST(Http, RequestsInOnePieceAreAnsweredInTheirOrder) {
  TestServer server;
  Client client(server.port());
  std::string all;
  for (int i = 0; i < 200; ++i)
    all += i % 20 == 0 ? Client::written("POST", "/v1/completions", completion({{"max_tokens", 1 + i / 20}}).dump())
                       : Client::written("GET", "/health", "");
  client.send(all);
  for (int i = 0; i < 200; ++i) {
    const Answer answer = client.answer();
    ASSERT_EQ(answer.status, 200) << i;
    if (i % 20 == 0) {
      EXPECT_EQ(answer.json()["usage"]["completion_tokens"], 1 + i / 20);
    }
  }
}

TEST(Http, ABodyMayComeByteByByteAndIsToldToContinue) {
  TestServer server;
  Client client(server.port());
  const std::string body = completion().dump();
  client.send(
      fmt::format("POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.size()));
  ASSERT_TRUE(client.read_until("HTTP/1.1 100 Continue\r\n\r\n"));
  EXPECT_EQ(client.answer().status, 100);
  for (const char byte : body) client.send(std::string_view(&byte, 1));
  EXPECT_EQ(client.answer().status, 200);
}

TEST(Http, Http10GetsAStreamThatEndsWithTheConnection) {
  TestServer server;
  Client client(server.port());
  const std::string body = completion({{"stream", true}}).dump();
  client.send(fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}", body.size(), body));
  EXPECT_TRUE(client.ended());
  EXPECT_NE(client.received().find("data: [DONE]\n\n"), std::string::npos);
  EXPECT_EQ(client.received().find("chunked"), std::string::npos);
}

TEST(Http, RequestIdsAreKeptWhereTheyAreHarmless) {
  TestServer server;
  Client client(server.port());
  EXPECT_EQ(client.get("/version", "X-Request-Id: abc-1\r\n").header("x-request-id"), "abc-1");
  EXPECT_EQ(client.get("/version", "X-Request-Id: a b\r\n").header("x-request-id").size(), 16u);
}

TEST(Keys, AreWantedEverywhereButForHealthAndKnowTheirRoles) {
  TemporaryFolder folder;
  const auto keys = folder.path() / "keys";
  std::ofstream(keys) << "# who\nsecret-a anna user\nsecret-b berta admin 3\n";
  TestServerOptions options;
  options.access.keys_file = keys;
  TestServer server(options);
  Client client(server.port());
  const std::string anna = "Authorization: Bearer secret-a\r\n", berta = "Authorization: Bearer secret-b\r\n";
  EXPECT_EQ(client.get("/health").status, 200);
  for (const char* path : {"/v1/models", "/metrics", "/version", "/nowhere", "/info"}) {
    const Answer answer = client.get(path);
    EXPECT_EQ(answer.status, 401) << path;
    EXPECT_EQ(answer.json()["error"]["type"], "authentication_error");
  }
  for (const char* wrong :
       {"Bearer secret-A", "Bearer secret-", "Bearer secret-aa", "Bearer ", "secret-a", "Basic secret-a"})
    EXPECT_EQ(client.get("/v1/models", fmt::format("Authorization: {}\r\n", wrong)).status, 401) << wrong;
  EXPECT_EQ(client.get("/v1/models", anna).status, 200);
  const json load{{"lora_name", "x"}, {"lora_path", "x"}};
  EXPECT_EQ(client.post("/v1/load_lora_adapter", load, anna).status, 403);
  EXPECT_EQ(client.post("/v1/load_lora_adapter", load, berta).status, 400);
  // Berta's three requests of a minute.
  EXPECT_EQ(client.get("/v1/models", berta).status, 200);
  EXPECT_EQ(client.get("/v1/models", berta).status, 200);
  const Answer spent = client.get("/v1/models", berta);
  EXPECT_EQ(spent.status, 429);
  EXPECT_GT(std::stoi(spent.header("retry-after")), 0);
  // Other keys from the same file.
  std::ofstream(keys) << "secret-c clara user\n";
  server.access().reload();
  EXPECT_EQ(client.get("/v1/models", anna).status, 401);
  EXPECT_EQ(client.get("/v1/models", "Authorization: Bearer secret-c\r\n").status, 200);
  std::ofstream(keys) << "nonsense\n";
  EXPECT_THROW(server.access().reload(), FormatError);
  EXPECT_EQ(client.get("/v1/models", "Authorization: Bearer secret-c\r\n").status, 200) << "the old keys stay";
}

TEST(Keys, PagesOfOtherSitesAreRefused) {
  TestServer server;
  Client client(server.port());
  EXPECT_EQ(client.post("/v1/completions", completion(), "Origin: http://evil.example\r\n").status, 403);
  EXPECT_EQ(client.post("/v1/completions", completion(), "Origin: http://here\r\n").status, 200);
}

TEST(Audit, TellsWhoAskedWhatForAndTheTextOnlyWhereAsked) {
  for (const bool with_text : {false, true}) {
    TemporaryFolder folder;
    {
      TestServerOptions options;
      options.audit_log = folder.path() / "audit.jsonl";
      options.audit_text = with_text;
      TestServer server(options);
      Client client(server.port());
      client.post("/v1/completions", completion(), "X-Request-Id: first\r\n");
      client.post("/v1/completions", json{{"prompt", 5}});
    }
    // A line is written when its request has ended: the second's may come first.
    std::istringstream lines(file_text(folder.path() / "audit.jsonl"));
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      const json entry = json::parse(line);
      EXPECT_EQ(entry["key"], "anonymous");
      EXPECT_EQ(entry["endpoint"], "POST /v1/completions");
      const bool first = entry["request_id"] == "first";
      EXPECT_EQ(entry["status"], first ? 200 : 400);
      EXPECT_EQ(entry["model"], first ? "tiny" : "");
      EXPECT_EQ(entry["completion_tokens"], first ? 12 : 0);
      EXPECT_EQ(line.find("it is") != std::string::npos, first && with_text);
    }
    EXPECT_EQ(count, 2);
  }
}

// An adapter of some effect for the tiny model, as a PEFT folder.
void write_adapter(TestServer& server, const std::filesystem::path& folder, float value) {
  std::filesystem::create_directories(folder);
  nn::ModelFiles files = nn::open_model_files(server.folder() / "model");
  nn::Transformer model(files.config, *files.weights, {.dtype = DType::f32});
  nn::LoraConfig config;
  config.target_modules = {"q_proj", "v_proj"};
  model.add_lora(config, 1);
  nn::PeftAdapter adapter = model.adapter();
  for (auto& [name, weights] : adapter.modules)
    for (float& element : weights.b.span<float>()) element = value;
  nn::write_peft_adapter(folder, adapter);
}

TEST(Adapters, AreLoadedAndUnloadedWhileTheServerRuns) {
  TestServer server;
  Client client(server.port());
  write_adapter(server, server.folder() / "adapters/one", 0.5f);
  write_adapter(server, server.folder() / "adapters/two", -0.5f);
  const auto text = [&](const char* model) {
    const Answer answer = client.post("/v1/completions", completion({{"model", model}, {"max_tokens", 30}}));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json()["choices"][0]["text"].get<std::string>();
  };
  const std::string base = text("tiny");
  const auto load = [&](const char* name, const char* path) {
    return client.post("/v1/load_lora_adapter", json{{"lora_name", name}, {"lora_path", path}}).status;
  };
  EXPECT_EQ(load("a", "one"), 200);
  EXPECT_EQ(load("a", "two"), 400) << "the name is taken";
  EXPECT_EQ(load("b", (server.folder() / "adapters/two").c_str()), 200);
  const std::string a = text("a"), b = text("b");
  EXPECT_NE(a, base);
  EXPECT_NE(a, b);
  EXPECT_EQ(text("tiny"), base);
  const json models = client.get("/v1/models").json()["data"];
  ASSERT_EQ(models.size(), 3u);
  EXPECT_EQ(models[1]["id"], "a");
  EXPECT_EQ(models[1]["parent"], "tiny");
  EXPECT_TRUE(models[0]["parent"].is_null());

  const auto unload = [&](const char* name) {
    return client.post("/v1/unload_lora_adapter", json{{"lora_name", name}}).status;
  };
  EXPECT_EQ(unload("a"), 200);
  EXPECT_EQ(unload("a"), 404);
  EXPECT_EQ(client.post("/v1/completions", completion({{"model", "a"}})).status, 404);
  EXPECT_EQ(load("a", "two"), 200);
  EXPECT_EQ(text("a"), b) << "nothing of the adapter that had the name before";
}

TEST(Adapters, LeaveWhenTheLastAnswerThatUsesThemHasEnded) {
  TestServer server;
  Client client(server.port()), uses(server.port());
  write_adapter(server, server.folder() / "adapters/one", 0.5f);
  const json load{{"lora_name", "a"}, {"lora_path", "one"}};
  ASSERT_EQ(client.post("/v1/load_lora_adapter", load).status, 200);
  uses.ask("POST", "/v1/completions", long_answer({{"model", "a"}, {"max_tokens", 300}}).dump());
  ASSERT_TRUE(uses.read_until("data: "));
  EXPECT_EQ(client.post("/v1/unload_lora_adapter", json{{"lora_name", "a"}}).status, 200);
  EXPECT_TRUE(uses.read_until("data: [DONE]"));
  EXPECT_EQ(uses.received().find("error"), std::string::npos);
  EXPECT_TRUE(server.becomes_idle());
  EXPECT_EQ(client.post("/v1/load_lora_adapter", load).status, 200);
}

TEST(Adapters, ComeFromUnderTheRootAlone) {
  TestServer server;
  Client client(server.port());
  write_adapter(server, server.folder() / "outside", 0.5f);
  std::filesystem::create_directory_symlink(server.folder() / "outside", server.folder() / "adapters/link");
  for (const std::string& path :
       {std::string("../outside"), (server.folder() / "outside").string(), std::string("link"), std::string("/etc"),
        std::string("one/../../outside"), std::string("http://x/y")}) {
    const Answer answer = client.post("/v1/load_lora_adapter", json{{"lora_name", "a"}, {"lora_path", path}});
    EXPECT_TRUE(answer.status == 403 || answer.status == 400) << path << answer.body;
    EXPECT_EQ(client.get("/v1/models").json()["data"].size(), 1u) << path;
  }
}

TEST(Embeddings, AreOfLengthOneAndDifferByPooling) {
  TestServer server;
  Client client(server.port());
  const auto embedding = [&](const json& more) {
    json body{{"input", "it is"}, {"model", "tiny"}};
    body.update(more);
    const Answer answer = client.post("/v1/embeddings", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json();
  };
  const json mean = embedding(json::object()), last = embedding({{"pooling", "last"}});
  double squares = 0;
  for (const double value : mean["data"][0]["embedding"]) squares += value * value;
  EXPECT_NEAR(squares, 1, 1e-5);  // 64 values rounded to f32
  EXPECT_NE(mean["data"][0]["embedding"], last["data"][0]["embedding"]);
  const json two = embedding({{"input", {"is", "it is"}}});
  EXPECT_EQ(two["data"][1]["embedding"], mean["data"][0]["embedding"]);
  EXPECT_EQ(embedding({{"encoding_format", "base64"}})["data"][0]["embedding"].get<std::string>().size(),
            (64 * 4 + 2) / 3 * 4);
  for (const json& body : {json{{"input", ""}}, json{{"input", 5}}, json{{"input", "a"}, {"dimensions", 3}},
                           json{{"input", "a"}, {"pooling", "max"}}, json{{"input", std::string(20000, 'a')}}})
    EXPECT_EQ(client.post("/v1/embeddings", body).status, 400) << body;
}

TEST(Metrics, CountTokensAndTheTimesBetweenThem) {
  TestServer server;
  Client client(server.port());
  client.post("/v1/completions", completion({{"n", 3}}));
  EXPECT_EQ(metric(client, "vllm:generation_tokens_total"), 36);
  EXPECT_EQ(metric(client, "vllm:inter_token_latency_seconds_count"), 3 * 11);
  EXPECT_EQ(metric(client, "vllm:time_to_first_token_seconds_count"), 3);
  EXPECT_EQ(metric(client, "vllm:e2e_request_latency_seconds_count"), 3);
  for (const char* phase : {"queue", "prefill", "decode", "inference"})
    EXPECT_EQ(metric(client, "vllm:request_" + std::string(phase) + "_time_seconds_count"), 3) << phase;
  const auto seconds = [&](const char* phase) {
    return metric(client, std::string("vllm:request_") + phase + "_time_seconds_sum");
  };
  EXPECT_GT(seconds("prefill"), 0);
  EXPECT_GE(seconds("queue"), 0);
  // The same moments, added up in another order.
  EXPECT_NEAR(seconds("inference"), seconds("prefill") + seconds("decode"), 1e-9);
  EXPECT_EQ(metric(client, "vllm:kv_cache_usage_perc"), 0);
  EXPECT_EQ(metric(client, "lathe:kv_cache_waste_perc"), 0);
  EXPECT_NE(client.get("/metrics").body.find("finished_reason=\"length\"} 3"), std::string::npos);
}

TEST(Tgi, GenerateAnswersAsItsClientsExpect) {
  TestServer server;
  Client client(server.port());
  const json body{{"inputs", "it is"}, {"parameters", {{"max_new_tokens", 12}, {"details", true}}}};
  const json answer = client.post("/generate", body).json();
  EXPECT_EQ(answer["details"]["generated_tokens"], 12);
  EXPECT_EQ(answer["details"]["finish_reason"], "length");
  ASSERT_EQ(answer["details"]["tokens"].size(), 12u);
  std::string joined;
  for (const json& token : answer["details"]["tokens"]) joined += token["text"].get<std::string>();
  EXPECT_EQ(joined, answer["generated_text"]);

  const std::vector<std::string> events = client.post("/generate_stream", body).events();
  ASSERT_EQ(events.size(), 12u);
  for (size_t i = 0; i < events.size(); ++i) {
    const json event = json::parse(events[i]);
    EXPECT_EQ(event["index"], i + 1);
    EXPECT_EQ(event["token"], answer["details"]["tokens"][i]);
    EXPECT_EQ(event["generated_text"].is_null(), i + 1 < events.size());
  }
  EXPECT_EQ(json::parse(events.back())["generated_text"], answer["generated_text"]);
  EXPECT_EQ(client.post("/", body).json()[0]["generated_text"], answer["generated_text"]);
  EXPECT_EQ(client.get("/info").json()["model_id"], "tiny");
}

TEST(Shutdown, DoesNotWaitForAnEngineThatDoesNotComeBack) {
  std::promise<void> may_load;
  TestServerOptions options;
  options.may_load = may_load.get_future().share();
  TestServer server(options);
  const ApiError farewell(503, "the server is shutting down");
  EXPECT_FALSE(server.engine().stop_within(farewell, std::chrono::milliseconds(1)));
  may_load.set_value();
  EXPECT_TRUE(server.engine().stop_within(farewell, std::chrono::minutes(1)));
}

TEST(Shutdown, EndsOpenStreamsWithAnErrorAndIdleConnectionsAtOnce) {
  TestServer server;
  Client streams(server.port()), idle(server.port());
  EXPECT_EQ(idle.get("/health").status, 200);
  streams.ask("POST", "/v1/completions", long_answer().dump());
  ASSERT_TRUE(streams.read_until("data: "));
  server.service().drain();
  server.server().drain();
  EXPECT_TRUE(idle.ended());
  server.engine().stop(ApiError(503, "the server is shutting down"));
  EXPECT_TRUE(streams.read_until("\"type\":\"service_unavailable_error\""));
  EXPECT_TRUE(streams.read_until("data: [DONE]"));
  EXPECT_TRUE(streams.ended());
}

}  // namespace
}  // namespace lathe::http
