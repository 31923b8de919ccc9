// An HTTP server on this machine that answers as a test wants it: with any status and headers, or breaking off.
#pragma once

#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace lathe::testing {

struct ServerRequest {
  std::string method, target;
  std::vector<std::pair<std::string, std::string>> headers;
  // "" where there is none.
  std::string header(const std::string& name) const {
    for (const auto& [key, value] : headers)
      if (boost::beast::iequals(key, name)) return value;
    return "";
  }
};

struct ServerAnswer {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::optional<size_t> break_after;  // bytes of the body, after which the connection is closed
};

class LocalServer {
 public:
  using Answer = std::function<ServerAnswer(const ServerRequest&)>;

  explicit LocalServer(Answer answer)
      : answer_(std::move(answer)), acceptor_(context_, {boost::asio::ip::make_address("127.0.0.1"), 0}) {
    port_ = acceptor_.local_endpoint().port();
    accepting_ = std::thread([this] { accept(); });
  }
  ~LocalServer() {
    stopping_ = true;
    // accept() returns once somebody comes.
    boost::asio::io_context context;
    boost::asio::ip::tcp::socket waking(context);
    boost::system::error_code ignored;
    waking.connect({boost::asio::ip::make_address("127.0.0.1"), port_}, ignored);
    accepting_.join();
    {
      const std::lock_guard guard(mutex_);
      for (auto& connection : connections_) connection.socket.shutdown(connection.socket.shutdown_both, ignored);
    }
    for (auto& connection : connections_) connection.thread.join();
  }
  std::string address() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<ServerRequest> requests() const {
    const std::lock_guard guard(mutex_);
    return requests_;
  }

 private:
  struct Connection {
    boost::asio::ip::tcp::socket socket;
    std::thread thread;
  };

  void accept() {
    for (;;) {
      boost::asio::ip::tcp::socket socket(context_);
      boost::system::error_code error;
      acceptor_.accept(socket, error);
      if (stopping_) return;
      if (error) continue;
      const std::lock_guard guard(mutex_);
      connections_.push_back({std::move(socket), {}});
      Connection& connection = connections_.back();
      connection.thread = std::thread([this, &connection] { serve(connection.socket); });
    }
  }

  void serve(boost::asio::ip::tcp::socket& socket) {
    namespace http = boost::beast::http;
    boost::beast::flat_buffer buffer;
    for (;;) {
      http::request<http::string_body> raw;
      boost::system::error_code error;
      http::read(socket, buffer, raw, error);
      if (error) return;
      ServerRequest request{std::string(raw.method_string()), std::string(raw.target()), {}};
      for (const auto& field : raw) request.headers.emplace_back(field.name_string(), field.value());
      {
        const std::lock_guard guard(mutex_);
        requests_.push_back(request);
      }
      const ServerAnswer answer = answer_(request);
      std::string text = "HTTP/1.1 " + std::to_string(answer.status) + " X\r\n";
      bool has_length = false;
      for (const auto& [name, value] : answer.headers) {
        text += name + ": " + value + "\r\n";
        has_length = has_length || boost::beast::iequals(name, "Content-Length");
      }
      if (!has_length) text += "Content-Length: " + std::to_string(answer.body.size()) + "\r\n";
      text += "\r\n";
      if (raw.method() != http::verb::head)
        text += answer.body.substr(0, answer.break_after.value_or(std::string::npos));
      boost::asio::write(socket, boost::asio::buffer(text), error);
      if (error) return;
      if (answer.break_after && raw.method() != http::verb::head) {
        socket.shutdown(socket.shutdown_both, error);
        return;
      }
    }
  }

  Answer answer_;
  boost::asio::io_context context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  unsigned short port_ = 0;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::vector<ServerRequest> requests_;
  std::list<Connection> connections_;
  std::thread accepting_;
};

}  // namespace lathe::testing
