// Everything at once: good requests, bad ones, clients that leave or do not read, adapters that come and go. Afterwards
// nothing is left over, and whoever stayed got what they would have got alone.
#include <thread>

#include "core/random.h"
#include "nn/weights/peft.h"
#include "tests/serve/http/test_server.h"

namespace lathe::http {
namespace {

using nlohmann::json;

constexpr int client_threads = 6, rounds = 100;

void write_adapter(TestServer& server) {
  const std::filesystem::path folder = server.folder() / "adapters/one";
  std::filesystem::create_directories(folder);
  const nn::ModelFiles files = nn::open_model_files(server.folder() / "model");
  nn::Transformer model(files.config, *files.weights, {.dtype = DType::f32});
  nn::LoraConfig config;
  config.target_modules = {"q_proj"};
  model.add_lora(config, 1);
  nn::write_peft_adapter(folder, model.adapter());
}

std::vector<json> some_bodies() {
  std::vector<json> bodies;
  for (int i = 0; i < 5; ++i)
    bodies.push_back(completion({{"temperature", i % 2}, {"seed", i}, {"max_tokens", 5 + 7 * i}, {"n", 1 + i % 3}}));
  return bodies;
}

class Worker {
 public:
  Worker(TestServer& server, const std::vector<json>& expected, uint64_t seed)
      : server_(server), expected_(expected), random_(seed, RandomPurpose::test) {}

  void run() {
    for (int round = 0; round < rounds; ++round) {
      switch (random_.below(7)) {
        case 0: bad(); break;
        case 1: leave(); break;
        case 2: never_read(); break;
        case 3: adapter(); break;
        default: good(); break;
      }
    }
  }
  int wrong() const { return wrong_; }

 private:
  void expect(bool holds) { wrong_ += !holds; }

  void good() {
    Client client(server_.port());
    const std::vector<json> bodies = some_bodies();
    for (uint64_t i = 0, count = 1 + random_.below(3); i < count; ++i) {
      const size_t which = random_.below(bodies.size());
      const Answer answer = client.post("/v1/completions", bodies[which]);
      expect(answer.status == 200 && answer.json()["choices"] == expected_[which]);
    }
  }
  void bad() {
    Client client(server_.port());
    expect(client.post("/v1/completions", completion({{"n", -1}})).status == 400);
    expect(client.post("/v1/chat/completions", std::string_view("{\"messages\": [[[")).status == 400);
  }
  void leave() {
    Client client(server_.port());
    client.ask("POST", "/v1/completions", completion({{"max_tokens", 3000}, {"stream", true}, {"n", 2}}).dump());
    for (uint64_t i = 0, reads = random_.below(4); i < reads; ++i) client.read_until("finish");
  }
  void never_read() {
    Client client(server_.port());
    std::string all;
    for (int i = 0; i < 3; ++i) all += Client::written("POST", "/v1/completions", completion().dump());
    client.send(all);
    ::usleep(static_cast<useconds_t>(random_.below(3000)));
  }
  void adapter() {
    Client client(server_.port());
    const int loaded = client.post("/v1/load_lora_adapter", json{{"lora_name", "a"}, {"lora_path", "one"}}).status;
    expect(loaded == 200 || loaded == 400);
    const int asked = client.post("/v1/completions", completion({{"model", "a"}})).status;
    expect(asked == 200 || asked == 404);
    const int unloaded = client.post("/v1/unload_lora_adapter", json{{"lora_name", "a"}}).status;
    expect(unloaded == 200 || unloaded == 404);
  }

  TestServer& server_;
  const std::vector<json>& expected_;
  RandomStream random_;
  int wrong_ = 0;
};

TEST(Soak, NothingIsLeftOverAndNobodysAnswerChanges) {
  TestServerOptions options;
  options.kv_cache_tokens = 8192;  // preemptions
  options.max_sequences = 8;
  TestServer server(options);
  write_adapter(server);
  std::vector<json> expected;
  {
    Client alone(server.port());
    for (const json& body : some_bodies()) expected.push_back(alone.post("/v1/completions", body).json()["choices"]);
  }
  std::vector<Worker> workers;
  for (int i = 0; i < client_threads; ++i) workers.emplace_back(server, expected, static_cast<uint64_t>(i));
  std::vector<std::thread> threads;
  for (Worker& worker : workers) threads.emplace_back([&worker] { worker.run(); });
  for (std::thread& thread : threads) thread.join();
  for (const Worker& worker : workers) EXPECT_EQ(worker.wrong(), 0);
  EXPECT_TRUE(server.becomes_idle());
  Client last(server.port());
  EXPECT_EQ(last.post("/v1/completions", some_bodies()[0]).json()["choices"], expected[0]);
}

}  // namespace
}  // namespace lathe::http
