#include "serve/http/server.h"

#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>
#if LATHE_TLS
#include <boost/asio/ssl/context.hpp>
#endif

#include "core/error.h"
#include "serve/http/connection.h"

namespace lathe::http {
namespace {

namespace net = boost::asio;
using boost::system::error_code;
using tcp = net::ip::tcp;

constexpr std::chrono::milliseconds full_pause{50};  // before looking again for room for a connection
constexpr size_t sweep_every = 1024;                 // connections between two sweeps of the list

tcp::endpoint endpoint_of(const ServerOptions& options) {
  error_code failed;
  const auto address = net::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, failed);
  if (failed) throw ConfigError("host", "expected an IP address such as 127.0.0.1 or ::, found " + options.host);
  return {address, options.port};
}

}  // namespace

struct Server::State {
  ConnectionHost host;  // outlives the connections, which end with the context
  net::io_context context;
  tcp::acceptor acceptor{net::make_strand(context)};
  net::steady_timer pause{acceptor.get_executor()};
  int64_t max_connections;
  std::mutex mutex;
  std::vector<std::weak_ptr<OpenConnection>> connections;
  std::vector<std::thread> threads;
  tcp::endpoint local;
#if LATHE_TLS
  std::optional<net::ssl::context> tls;
#endif
  bool secure = false;

  void listen(const ServerOptions& options);
  void read_certificate(const ServerOptions& options);
  void accept();
  void open(tcp::socket socket);
};

void Server::State::listen(const ServerOptions& options) {
  const tcp::endpoint endpoint = endpoint_of(options);
  error_code failed;
  const auto then = [&](auto&& call) {
    if (!failed) call();
  };
  acceptor.open(endpoint.protocol(), failed);
  then([&] { acceptor.set_option(net::socket_base::reuse_address(true), failed); });
  then([&] { acceptor.bind(endpoint, failed); });
  then([&] { acceptor.listen(net::socket_base::max_listen_connections, failed); });
  if (failed)
    throw ResourceError(fmt::format("{}:{} cannot be listened on: {}; choose another with --port", options.host,
                                    options.port, failed.message()));
  local = acceptor.local_endpoint();
}

void Server::State::read_certificate(const ServerOptions& options) {
  if (options.tls_cert.empty() && options.tls_key.empty()) return;
  if (options.tls_cert.empty() || options.tls_key.empty())
    throw ConfigError(options.tls_cert.empty() ? "tls_cert" : "tls_key", "is missing beside the other of the two");
#if LATHE_TLS
  tls.emplace(net::ssl::context::tls_server);
  tls->set_options(net::ssl::context::default_workarounds | net::ssl::context::no_sslv2 | net::ssl::context::no_sslv3 |
                   net::ssl::context::no_tlsv1 | net::ssl::context::no_tlsv1_1);
  error_code failed;
  tls->use_certificate_chain_file(options.tls_cert.string(), failed);
  if (failed) throw ConfigError("tls_cert", options.tls_cert.string() + ": " + failed.message());
  tls->use_private_key_file(options.tls_key.string(), net::ssl::context::pem, failed);
  if (failed) throw ConfigError("tls_key", options.tls_key.string() + ": " + failed.message());
  secure = true;
#else
  throw ConfigError("tls_cert", "this build has no TLS; configure with -DLATHE_TLS=ON");
#endif
}

void Server::State::accept() {
  if (host.open >= max_connections) {
    pause.expires_after(full_pause);
    pause.async_wait([this](error_code error) {
      if (!error && acceptor.is_open()) accept();
    });
    return;
  }
  acceptor.async_accept(net::make_strand(context), [this](error_code error, tcp::socket socket) {
    if (error == net::error::operation_aborted || !acceptor.is_open()) return;
    if (!error) {
      open(std::move(socket));
    } else {  // out of descriptors: the listening socket stays readable, so wait a little
      pause.expires_after(full_pause);
      pause.async_wait([this](error_code again) {
        if (!again && acceptor.is_open()) accept();
      });
      return;
    }
    accept();
  });
}

void Server::State::open(tcp::socket socket) {
#if LATHE_TLS
  std::shared_ptr<OpenConnection> connection =
      tls ? open_connection(std::move(socket), *tls, host) : open_connection(std::move(socket), host);
#else
  std::shared_ptr<OpenConnection> connection = open_connection(std::move(socket), host);
#endif
  const std::lock_guard lock(mutex);
  connections.push_back(std::move(connection));
  if (connections.size() % sweep_every == 0)
    std::erase_if(connections, [](const auto& some) { return some.expired(); });
}

Server::Server(const ServerOptions& options, std::function<void(const std::shared_ptr<Exchange>&)> handle)
    : state_(std::make_unique<State>()) {
  state_->host.handle = std::move(handle);
  state_->host.limits.body_bytes = options.max_body_bytes;
  state_->host.limits.stream_bytes = options.max_stream_bytes;
  state_->host.limits.request = std::chrono::milliseconds(static_cast<int64_t>(options.request_timeout * 1000));
  state_->max_connections = options.max_connections;
  state_->read_certificate(options);
  state_->listen(options);
  state_->accept();
  for (int i = 0; i < options.threads; ++i) state_->threads.emplace_back([this] { state_->context.run(); });
}

Server::~Server() {
  state_->context.stop();
  for (std::thread& thread : state_->threads) thread.join();
}

std::string Server::url() const {
  const auto address = state_->local.address();
  return fmt::format("{}://{}:{}", state_->secure ? "https" : "http",
                     address.is_v6() ? "[" + address.to_string() + "]" : address.to_string(), port());
}

uint16_t Server::port() const { return state_->local.port(); }
int64_t Server::open_connections() const { return state_->host.open; }

void Server::drain() {
  state_->host.closing = true;
  net::post(state_->acceptor.get_executor(), [this] {
    error_code ignored;
    state_->acceptor.close(ignored);
    state_->pause.cancel();
  });
  const std::lock_guard lock(state_->mutex);
  for (const auto& some : state_->connections)
    if (const auto connection = some.lock()) connection->end_when_idle();
}

bool is_loopback(const std::string& host) {
  error_code failed;
  const auto address = net::ip::make_address(host == "localhost" ? "127.0.0.1" : host, failed);
  return !failed && address.is_loopback();
}

}  // namespace lathe::http
