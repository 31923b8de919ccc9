// Listens, accepts, and runs the HTTP threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "serve/http/exchange.h"

namespace lathe::http {

struct ServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;  // 0: one that is free
  int threads = 2;
  int64_t max_connections = 10240;  // more wait to be accepted
  size_t max_body_bytes = 8 << 20;
  size_t max_stream_bytes = 1 << 20;
  double request_timeout = 30;              // seconds from a request's first byte to its last
  std::filesystem::path tls_cert, tls_key;  // PEM; both or none
};

class Server {
 public:
  // Listens when it returns. ResourceError where the address cannot be had, ConfigError for what is no address or no
  // certificate.
  Server(const ServerOptions& options, std::function<void(const std::shared_ptr<Exchange>&)> handle);
  ~Server();  // ends every connection where it stands
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::string url() const;
  uint16_t port() const;
  int64_t open_connections() const;
  // No new connections; those without a request under way end, the others with their answer.
  void drain();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Whether only this machine can reach what listens on the host.
bool is_loopback(const std::string& host);

}  // namespace lathe::http
