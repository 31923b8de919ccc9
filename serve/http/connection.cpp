#include "serve/http/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <utility>
#if LATHE_TLS
#include <boost/asio/ssl/stream.hpp>
#endif

#include "serve/http/api_error.h"
#include "serve/http/generation_settings.h"

namespace lathe::http {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
using boost::system::error_code;
using tcp = net::ip::tcp;

constexpr size_t read_bytes = 4096, most_bytes_ahead = 64 << 10;  // ahead: of requests that wait for their turn
constexpr std::chrono::milliseconds farewell{1000};               // for what a client still sends when it is told to go

bool is_good_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::ranges::all_of(id, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
}

template <class Stream>
class Connection final : public Exchange,
                         public OpenConnection,
                         public std::enable_shared_from_this<Connection<Stream>> {
 public:
  Connection(Stream stream, ConnectionHost& host)
      : stream_(std::move(stream)), timer_(stream_.get_executor()), host_(host) {
    ++host_.open;
  }
  ~Connection() override { --host_.open; }

  void start() {
    net::post(stream_.get_executor(), [self = this->shared_from_this()] { self->begin(); });
  }
  void end_when_idle() override {
    net::post(stream_.get_executor(), [self = this->shared_from_this()] {
      if (self->state_ == State::reading && !self->request_begun_) self->close();
    });
  }

  const HttpRequest& request() const override { return request_; }
  void post(std::function<void()> work) override {
    net::post(stream_.get_executor(), [self = this->shared_from_this(), work = std::move(work)] { work(); });
  }
  void reply(Reply reply) override;
  void begin_stream(Reply head) override;
  void send(std::string_view bytes) override;
  void end_stream() override;
  void on_gone(std::function<void()> call) override { gone_call_ = std::move(call); }
  bool gone() const override { return state_ == State::closed; }

 private:
  enum class State { reading, answering, streaming, answered, leaving, closed };

  void begin();
  void next_request();
  void read_more();
  void advance();
  void dispatch();
  void refuse(unsigned status, const std::string& reason);
  void append_head(const Reply& reply, std::optional<size_t> length);
  void flush();
  void after_flush();
  void leave();
  void close();
  void arm(std::chrono::milliseconds time);
  void disarm();
  void expired();
  tcp::socket& socket();

  Stream stream_;
  net::steady_timer timer_;
  ConnectionHost& host_;
  State state_ = State::reading;

  std::array<char, read_bytes> incoming_;
  bool reading_ = false;
  std::string ahead_;  // read, not parsed yet
  std::optional<beast::http::request_parser<beast::http::string_body>> parser_;
  bool request_begun_ = false, told_to_continue_ = false;

  HttpRequest request_;
  bool keep_alive_ = true, chunked_ = true, head_only_ = false;
  std::function<void()> gone_call_;

  std::string outgoing_, writing_;  // waiting, and being written
  bool write_under_way_ = false;
  uint64_t armed_ = 0;  // which arming of the timer counts
};

template <class Stream>
tcp::socket& Connection<Stream>::socket() {
  if constexpr (std::is_same_v<Stream, tcp::socket>) {
    return stream_;
  } else {
    return stream_.next_layer();
  }
}

template <class Stream>
void Connection<Stream>::begin() {
  error_code ignored;
  socket().set_option(tcp::no_delay(true), ignored);
  const tcp::endpoint remote = socket().remote_endpoint(ignored);
  request_.remote = remote.address().to_string(ignored);
  if constexpr (std::is_same_v<Stream, tcp::socket>) {
    next_request();
  } else {
    arm(host_.limits.request);
    stream_.async_handshake(net::ssl::stream_base::server, [self = this->shared_from_this()](error_code error) {
      if (error) return self->close();
      self->next_request();
    });
  }
}

template <class Stream>
void Connection<Stream>::next_request() {
  if (state_ == State::closed) return;
  state_ = State::reading;
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(host_.limits.header_bytes));
  parser_->body_limit(host_.limits.body_bytes);
  parser_->eager(true);
  request_begun_ = told_to_continue_ = false;
  arm(host_.limits.idle);
  if (host_.closing && ahead_.empty()) return close();
  advance();
}

// One read is always under way, so that a client's going is noticed at once; unless it sends far ahead.
template <class Stream>
void Connection<Stream>::read_more() {
  if (reading_ || state_ == State::closed || ahead_.size() > most_bytes_ahead) return;
  reading_ = true;
  stream_.async_read_some(net::buffer(incoming_), [self = this->shared_from_this()](error_code error, size_t count) {
    self->reading_ = false;
    if (error) return self->close();
    if (self->state_ != State::leaving) self->ahead_.append(self->incoming_.data(), count);
    if (self->state_ == State::reading) return self->advance();
    self->read_more();
  });
}

template <class Stream>
void Connection<Stream>::advance() {
  while (!ahead_.empty()) {
    if (!std::exchange(request_begun_, true)) arm(host_.limits.request);
    error_code error;
    const size_t used = parser_->put(net::buffer(ahead_), error);
    ahead_.erase(0, used);
    if (error == beast::http::error::body_limit)
      return refuse(413, fmt::format("the body is longer than {} bytes", host_.limits.body_bytes));
    if (error == beast::http::error::header_limit)
      return refuse(431, fmt::format("the headers are longer than {} bytes", host_.limits.header_bytes));
    if (error && error != beast::http::error::need_more)
      return refuse(400, "this is no HTTP request: " + error.message());
    if (parser_->is_done()) return dispatch();
    if (parser_->is_header_done() && !told_to_continue_ &&
        beast::iequals(parser_->get()[beast::http::field::expect], "100-continue")) {
      told_to_continue_ = true;
      outgoing_ += "HTTP/1.1 100 Continue\r\n\r\n";
      flush();
    }
    if (error == beast::http::error::need_more) break;
  }
  read_more();
}

template <class Stream>
void Connection<Stream>::dispatch() {
  using beast::http::field;
  auto message = parser_->release();
  parser_.reset();
  disarm();
  const auto text = [&](field name) { return std::string(message[name]); };
  const std::string target(message.target());
  request_.method = std::string(message.method_string());
  request_.path = target.substr(0, target.find('?'));
  request_.body = std::move(message.body());
  request_.authorization = text(field::authorization);
  request_.content_type = text(field::content_type);
  request_.origin = text(field::origin);
  request_.host = text(field::host);
  const std::string id(message["X-Request-Id"]);
  request_.request_id = is_good_request_id(id) ? id : fmt::format("{:016x}", random_seed());
  keep_alive_ = message.keep_alive() && !host_.closing;
  chunked_ = message.version() >= 11;
  head_only_ = request_.method == "HEAD";
  if (head_only_) request_.method = "GET";
  state_ = State::answering;
  read_more();
  host_.handle(this->shared_from_this());
}

template <class Stream>
void Connection<Stream>::refuse(unsigned status, const std::string& reason) {
  keep_alive_ = false;
  head_only_ = false;
  ahead_.clear();
  disarm();
  state_ = State::answering;
  reply(ApiError(status, reason).reply());
  read_more();
}

template <class Stream>
void Connection<Stream>::append_head(const Reply& reply, std::optional<size_t> length) {
  const auto reason = beast::http::obsolete_reason(static_cast<beast::http::status>(reply.status));
  outgoing_ += fmt::format("HTTP/1.1 {} {}\r\nServer: lathe\r\nContent-Type: {}\r\n", reply.status,
                           std::string_view(reason.data(), reason.size()), reply.content_type);
  for (const auto& [name, value] : reply.headers) outgoing_ += name + ": " + value + "\r\n";
  if (!request_.request_id.empty()) outgoing_ += "X-Request-Id: " + request_.request_id + "\r\n";
  if (length) {
    outgoing_ += fmt::format("Content-Length: {}\r\n", *length);
  } else if (chunked_) {
    outgoing_ += "Transfer-Encoding: chunked\r\n";
  }
  outgoing_ += keep_alive_ ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
}

template <class Stream>
void Connection<Stream>::reply(Reply reply) {
  if (state_ != State::answering) return;
  keep_alive_ = keep_alive_ && !host_.closing;
  append_head(reply, reply.body.size());
  if (!head_only_) outgoing_ += reply.body;
  state_ = State::answered;
  gone_call_ = nullptr;
  flush();
}

template <class Stream>
void Connection<Stream>::begin_stream(Reply head) {
  if (state_ != State::answering) return;
  if (!chunked_) keep_alive_ = false;  // HTTP/1.0: the end of the connection is the end of the stream
  append_head(head, std::nullopt);
  state_ = State::streaming;
  flush();
}

template <class Stream>
void Connection<Stream>::send(std::string_view bytes) {
  if (state_ != State::streaming || bytes.empty()) return;
  if (outgoing_.size() + bytes.size() > host_.limits.stream_bytes) return close();
  if (chunked_) {
    outgoing_ += fmt::format("{:x}\r\n", bytes.size());
    outgoing_ += bytes;
    outgoing_ += "\r\n";
  } else {
    outgoing_ += bytes;
  }
  flush();
}

template <class Stream>
void Connection<Stream>::end_stream() {
  if (state_ != State::streaming) return;
  if (chunked_) outgoing_ += "0\r\n\r\n";
  state_ = State::answered;
  gone_call_ = nullptr;
  flush();
}

template <class Stream>
void Connection<Stream>::flush() {
  if (write_under_way_ || state_ == State::closed || outgoing_.empty()) return;
  writing_ = std::exchange(outgoing_, {});
  write_under_way_ = true;
  arm(host_.limits.send);
  net::async_write(stream_, net::buffer(writing_), [self = this->shared_from_this()](error_code error, size_t) {
    self->write_under_way_ = false;
    if (error) return self->close();
    self->writing_.clear();
    if (!self->outgoing_.empty()) return self->flush();
    self->after_flush();
  });
}

template <class Stream>
void Connection<Stream>::after_flush() {
  switch (state_) {
    case State::reading: return arm(host_.limits.request);  // after "100 Continue"
    case State::streaming: return arm(host_.limits.comment);
    case State::answered: return keep_alive_ && !host_.closing ? next_request() : leave();
    default: return disarm();
  }
}

// A socket closed on bytes that nobody has read resets the connection, and the client may lose the answer.
template <class Stream>
void Connection<Stream>::leave() {
  state_ = State::leaving;
  ahead_.clear();
  if constexpr (std::is_same_v<Stream, tcp::socket>) {
    error_code ignored;
    socket().shutdown(tcp::socket::shutdown_send, ignored);
  } else {
    stream_.async_shutdown([self = this->shared_from_this()](error_code) { self->close(); });
  }
  arm(farewell);
  read_more();
}

template <class Stream>
void Connection<Stream>::close() {
  if (state_ == State::closed) return;
  state_ = State::closed;
  disarm();
  error_code ignored;
  socket().close(ignored);
  if (const auto call = std::exchange(gone_call_, nullptr)) call();
}

template <class Stream>
void Connection<Stream>::arm(std::chrono::milliseconds time) {
  timer_.expires_after(time);
  timer_.async_wait([self = this->shared_from_this(), armed = ++armed_](error_code error) {
    if (!error && armed == self->armed_) self->expired();
  });
}

template <class Stream>
void Connection<Stream>::disarm() {
  ++armed_;
  timer_.cancel();
}

template <class Stream>
void Connection<Stream>::expired() {
  if (write_under_way_) return close();
  if (state_ == State::streaming) return send(": keep-alive\n\n");
  if (state_ == State::reading && request_begun_) return refuse(408, "the request did not arrive in time");
  close();
}

}  // namespace

std::shared_ptr<OpenConnection> open_connection(tcp::socket socket, ConnectionHost& host) {
  const auto connection = std::make_shared<Connection<tcp::socket>>(std::move(socket), host);
  connection->start();
  return connection;
}

#if LATHE_TLS
std::shared_ptr<OpenConnection> open_connection(tcp::socket socket, net::ssl::context& tls, ConnectionHost& host) {
  using TlsStream = net::ssl::stream<tcp::socket>;
  const auto connection = std::make_shared<Connection<TlsStream>>(TlsStream(std::move(socket), tls), host);
  connection->start();
  return connection;
}
#endif

}  // namespace lathe::http
