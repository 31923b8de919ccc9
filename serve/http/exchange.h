// One HTTP request and the way to answer it: what the endpoints know of a connection.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lathe::http {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // of the target, without the query
  std::string body;
  std::string remote;  // the client's address
  std::string authorization, content_type, origin, host, request_id;
};

struct Reply {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// Everything but post() is called on the exchange's own strand, where one function runs at a time.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const = 0;
  // From any thread: runs `work` on the strand.
  virtual void post(std::function<void()> work) = 0;

  // Either a whole answer …
  virtual void reply(Reply reply) = 0;
  // … or one that grows: begin, send as often as wanted, end. Where the client reads more slowly than is sent, up to
  // the stream limit waits in memory; beyond it the connection is closed and on_gone called.
  virtual void begin_stream(Reply head) = 0;
  virtual void send(std::string_view bytes) = 0;
  virtual void end_stream() = 0;

  // Called once when the client goes before the answer has ended. Nothing that is sent afterwards has an effect.
  virtual void on_gone(std::function<void()> call) = 0;
  virtual bool gone() const = 0;
};

}  // namespace lathe::http
