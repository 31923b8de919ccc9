// A server with the tiny Llama on a free port of this machine, and a client that speaks HTTP by hand: tests must be
// able to send what no library would.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "core/json_value.h"
#include "nn/model_files.h"
#include "serve/http/server.h"
#include "serve/http/service.h"
#include "tests/support/source_dir.h"
#include "tests/support/temporary_folder.h"

namespace lathe::http {

// Without the role, whose word is none of the tiny model's tokens.
inline constexpr const char* test_template =
    "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}";

struct TestServerOptions {
  ServerOptions server = {.port = 0};
  EngineLimits limits = {};
  AccessOptions access = {};
  std::filesystem::path audit_log = {};
  bool audit_text = false;
  int64_t max_positions = 4096;  // long answers leave time to leave
  int64_t kv_cache_tokens = 16384;
  int64_t max_sequences = 64;
  int64_t num_speculative_tokens = 0;
  bool with_template = true;
  std::string chat_template = test_template;
  std::pair<std::string, std::string> renamed_token = {};  // in tokenizer.json
  std::shared_future<void> may_load = {};                  // waits for it
};

class TestServer {
 public:
  explicit TestServer(const TestServerOptions& options = {})
      : metrics_("tiny"), access_(options.access), audit_(options.audit_log, options.audit_text) {
    const std::filesystem::path golden = std::filesystem::path(source_dir) / "tests/golden";
    std::filesystem::create_directory(folder() / "model");
    for (const char* file : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(golden / "tiny_llama/untied" / file, folder() / "model" / file);
    write_tokenizer(golden / "tokenizer/byte_level/tokenizer.json", options.renamed_token);
    nlohmann::json config{{"eos_token", "<|im_end|>"}};
    if (options.with_template) config["chat_template"] = options.chat_template;
    std::ofstream(folder() / "model/tokenizer_config.json") << config.dump();
    std::filesystem::create_directory(folder() / "adapters");
    engine_.emplace([this, options] { return load(options); }, options.limits, metrics_);
    service_.emplace(ServiceOptions{"tiny", (folder() / "model").string(), folder() / "adapters", 1'700'000'000},
                     *engine_, metrics_, adapters_, access_, audit_);
    server_.emplace(options.server, [this](const auto& exchange) { service_->handle(exchange); });
    if (!options.may_load.valid()) engine_->loaded().get();
  }
  ~TestServer() { engine_->stop(ApiError(503, "the server is shutting down")); }

  std::filesystem::path folder() const { return temporary_.path(); }
  uint16_t port() const { return server_->port(); }
  EngineThread& engine() { return *engine_; }
  Service& service() { return *service_; }
  Server& server() { return *server_; }
  Metrics& metrics() { return metrics_; }
  Access& access() { return access_; }

  // Waits until no sequence is left; false where that takes a minute.
  bool becomes_idle() {
    for (int i = 0; i < 6000; ++i) {
      const engine::EngineStats stats = metrics_.stats();
      if (engine_->live_sequences() == 0 && stats.requests_running == 0 && stats.requests_waiting == 0 &&
          stats.pages_used == 0)
        return true;
      ::usleep(10'000);
    }
    return false;
  }

 private:
  void write_tokenizer(const std::filesystem::path& source, const std::pair<std::string, std::string>& renamed) const {
    std::ifstream file(source);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto& [from, to] = renamed;
    for (size_t at = from.empty() ? std::string::npos : text.find(from); at != std::string::npos;
         at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
    std::ofstream(folder() / "model/tokenizer.json") << text;
  }
  LoadedModel load(const TestServerOptions& options) const {
    if (options.may_load.valid()) options.may_load.wait();
    const nn::ModelFiles files = nn::open_model_files(folder() / "model");
    LoadedModel loaded;
    loaded.text = text::load_model_text(files);
    loaded.model = std::make_unique<nn::Transformer>(
        files.config, *files.weights,
        nn::TransformerOptions{.dtype = DType::f32, .max_positions = options.max_positions});
    loaded.engine.tokenizer = loaded.text.tokenizer;
    loaded.engine.kv_cache_tokens = options.kv_cache_tokens;
    loaded.engine.max_sequences = options.max_sequences;
    loaded.engine.num_speculative_tokens = options.num_speculative_tokens;
    return loaded;
  }

  TemporaryFolder temporary_;
  Metrics metrics_;
  AdapterList adapters_;
  Access access_;
  AuditLog audit_;
  std::optional<EngineThread> engine_;
  std::optional<Service> service_;
  std::optional<Server> server_;
};

struct Answer {
  int status = 0;
  std::string head, body;  // the body without the framing of chunks
  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
  // The value of a header, in lower case's name; empty where there is none.
  std::string header(const std::string& name) const {
    std::istringstream lines(head);
    for (std::string line; std::getline(lines, line);) {
      const size_t colon = line.find(':');
      if (colon == std::string::npos) continue;
      std::string key = line.substr(0, colon);
      for (char& c : key) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      if (key == name) return line.substr(colon + 2, line.size() - colon - 3);
    }
    return {};
  }
  // The data of a stream's events, in order.
  std::vector<std::string> events() const {
    std::vector<std::string> data;
    std::istringstream lines(body);
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with("data: ")) data.push_back(line.substr(6));
    return data;
  }
};

class Client {
 public:
  explicit Client(uint16_t port) {
    socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      throw ResourceError("cannot connect");
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Client() { leave(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void leave() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  static std::string written(std::string_view method, std::string_view path, std::string_view body,
                             std::string_view headers = {}) {
    return std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: here\r\n" + std::string(headers) +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
  }
  void ask(std::string_view method, std::string_view path, std::string_view body, std::string_view headers = {}) {
    send(written(method, path, body, headers));
  }
  // Reads until the text has come. False where the connection ends first.
  bool read_until(std::string_view text) {
    while (buffer_.find(text) == std::string::npos)
      if (!read_some()) return false;
    return true;
  }
  bool ended() {
    while (read_some()) {
    }
    return true;
  }
  const std::string& received() const { return buffer_; }

  Answer answer() {
    Answer answer;
    if (!read_until("\r\n\r\n")) return answer;
    const size_t end = buffer_.find("\r\n\r\n") + 4;
    answer.head = buffer_.substr(0, end);
    buffer_.erase(0, end);
    answer.status = std::stoi(answer.head.substr(9, 3));
    if (answer.header("transfer-encoding") == "chunked") {
      while (true) {
        if (!read_until("\r\n")) break;
        const size_t line = buffer_.find("\r\n"), size = std::stoul(buffer_.substr(0, line), nullptr, 16);
        while (buffer_.size() < line + 2 + size + 2)
          if (!read_some()) return answer;
        answer.body += buffer_.substr(line + 2, size);
        buffer_.erase(0, line + 2 + size + 2);
        if (size == 0) break;
      }
    } else {
      const std::string length = answer.header("content-length");
      const size_t size = length.empty() ? 0 : std::stoul(length);
      while (buffer_.size() < size)
        if (!read_some()) return answer;
      answer.body = buffer_.substr(0, size);
      buffer_.erase(0, size);
    }
    return answer;
  }
  Answer get(std::string_view path, std::string_view headers = {}) {
    ask("GET", path, "", headers);
    return answer();
  }
  Answer post(std::string_view path, std::string_view body, std::string_view headers = {}) {
    ask("POST", path, body, headers);
    return answer();
  }
  Answer post(std::string_view path, const nlohmann::json& body, std::string_view headers = {}) {
    return post(path, std::string_view(body.dump()), headers);
  }

 private:
  bool read_some() {
    char bytes[4096];
    const ssize_t count = ::recv(socket_, bytes, sizeof bytes, 0);
    if (count <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(count));
    return true;
  }
  int socket_ = -1;
  std::string buffer_;
};

// A chat whose answer takes a few steps, and always the same ones.
inline nlohmann::json chat(const nlohmann::json& more = nlohmann::json::object()) {
  nlohmann::json body{{"messages", {{{"role", "user"}, {"content", "it is"}}}},
                      {"temperature", 0},
                      {"max_tokens", 12},
                      {"ignore_eos", true}};
  body.update(more);
  return body;
}
inline nlohmann::json completion(const nlohmann::json& more = nlohmann::json::object()) {
  nlohmann::json body{{"prompt", "it is"}, {"temperature", 0}, {"max_tokens", 12}, {"ignore_eos", true}};
  body.update(more);
  return body;
}

}  // namespace lathe::http
