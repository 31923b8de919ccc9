// One client's connection: reads requests within limits, one after another, and writes their answers.
#pragma once

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#if LATHE_TLS
#include <boost/asio/ssl/context.hpp>
#endif

#include "serve/http/exchange.h"

namespace lathe::http {

struct ConnectionLimits {
  size_t header_bytes = 16 << 10;
  size_t body_bytes = 8 << 20;
  size_t stream_bytes = 1 << 20;             // that a slow reader may leave unread, beyond what the system buffers
  std::chrono::milliseconds request{30000};  // from a request's first byte to its last
  std::chrono::milliseconds idle{75000};     // between requests
  std::chrono::milliseconds send{30000};     // without a byte being taken
  std::chrono::milliseconds comment{15000};  // a stream without events gets a comment as often
};

// What connections share. `handle` answers in any case, then or later.
struct ConnectionHost {
  ConnectionLimits limits;
  std::function<void(const std::shared_ptr<Exchange>&)> handle;
  std::atomic<int64_t> open = 0;
  std::atomic<bool> closing = false;  // connections end with the answer that they are at
};

class OpenConnection {
 public:
  virtual ~OpenConnection() = default;
  // From any thread: the host is closing. Ends now where no request is under way.
  virtual void end_when_idle() = 0;
};

// Takes the socket over; the connection lives as long as something is under way on it. Its socket's executor is a
// strand. The host must outlive it.
std::shared_ptr<OpenConnection> open_connection(boost::asio::ip::tcp::socket socket, ConnectionHost& host);
#if LATHE_TLS
std::shared_ptr<OpenConnection> open_connection(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context& tls,
                                                ConnectionHost& host);
#endif

}  // namespace lathe::http
