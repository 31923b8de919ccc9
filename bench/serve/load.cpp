#include "bench/serve/load.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/json_value.h"
#include "core/random.h"

namespace lathe::bench {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
using boost::system::error_code;
using tcp = net::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr size_t read_bytes = 16 << 10;

int64_t drawn(RandomStream& random, TokenRange range) {
  return range.least + static_cast<int64_t>(random.below(static_cast<uint64_t>(range.most - range.least + 1)));
}

// One request on a connection of its own, from its bytes to its last event.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(net::io_context& io, Clock::time_point began, RequestTiming& timing, std::function<void()> done)
      : socket_(io), began_(began), timing_(timing), done_(std::move(done)) {
    parser_.eager(true);
    parser_.body_limit(uint64_t{1} << 30);
  }

  void start(const tcp::resolver::results_type& endpoints, std::string request) {
    request_ = std::move(request);
    timing_.sent = now();
    net::async_connect(socket_, endpoints, [self = shared_from_this()](error_code error, const tcp::endpoint&) {
      if (error) return self->end("cannot connect: " + error.message());
      net::async_write(self->socket_, net::buffer(self->request_), [self](error_code failed, size_t) {
        if (failed) return self->end("cannot send: " + failed.message());
        self->read();
      });
    });
  }

 private:
  double now() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }

  void read() {
    incoming_.resize(read_bytes);
    socket_.async_read_some(net::buffer(incoming_), [self = shared_from_this()](error_code error, size_t count) {
      if (error && error != net::error::eof) return self->end("cannot read: " + error.message());
      self->pending_.append(self->incoming_.data(), count);
      self->take(error == net::error::eof);
    });
  }

  void take(bool at_end) {
    error_code error;
    while (!pending_.empty() && !parser_.is_done()) {
      const size_t used = parser_.put(net::buffer(pending_), error);
      pending_.erase(0, used);
      if (error == beast::http::error::need_more) break;
      if (error) return end("no HTTP answer: " + error.message());
    }
    if (parser_.is_header_done() && parser_.get().result_int() == 200) take_events();
    if (!parser_.is_done() && !at_end) return read();
    if (!parser_.is_header_done()) return end("the connection ended");
    if (parser_.get().result_int() != 200)
      return end("status " + std::to_string(parser_.get().result_int()) + ": " + parser_.get().body().substr(0, 200));
    end(ended_ ? timing_.error : "the stream ended early");
  }

  void take_events() {
    const std::string& body = parser_.get().body();
    for (size_t line_end; (line_end = body.find('\n', seen_)) != std::string::npos;) {
      const std::string_view line = std::string_view(body).substr(seen_, line_end - seen_);
      seen_ = line_end + 1;
      if (line.starts_with("data: ")) take_event(line.substr(6));
    }
  }

  void take_event(std::string_view data) {
    if (data.starts_with("[DONE]")) {
      ended_ = true;
      return;
    }
    const nlohmann::json event = nlohmann::json::parse(data, nullptr, false);
    if (!event.is_object()) return;
    if (event.contains("error")) timing_.error = event["error"].dump().substr(0, 200);
    if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
      timing_.prompt_tokens = usage->value("prompt_tokens", int64_t{0});
      timing_.output_tokens = usage->value("completion_tokens", int64_t{0});
    }
    const auto choices = event.find("choices");
    if (choices == event.end() || choices->empty() || (*choices)[0].value("text", "").empty()) return;
    const double time = now();
    if (timing_.first_token == 0) {
      timing_.first_token = time;
    } else {
      timing_.gaps.push_back(time - timing_.last_token);
    }
    timing_.last_token = time;
  }

  void end(std::string error) {
    timing_.error = std::move(error);
    error_code ignored;
    socket_.close(ignored);
    done_();
  }

  tcp::socket socket_;
  Clock::time_point began_;
  RequestTiming& timing_;
  std::function<void()> done_;
  std::string request_, incoming_, pending_;
  beast::http::response_parser<beast::http::string_body> parser_;
  size_t seen_ = 0;  // of the body
  bool ended_ = false;
};

class Load {
 public:
  explicit Load(const LoadOptions& options) : options_(options), random_(options.seed, RandomPurpose::test) {
    result_.requests.resize(static_cast<size_t>(options.requests));
    for (int64_t i = 0; i < options.shared_prefix; ++i) prefix_.push_back(drawn(random_, options.token_ids));
    for (int64_t i = 0; i < options.requests; ++i) requests_.push_back(make_request());
    error_code failed;
    endpoints_ = tcp::resolver(io_).resolve(options.host, options.port, failed);
    if (failed) throw ResourceError(options.host + ":" + options.port + " cannot be found: " + failed.message());
  }

  LoadResult run() {
    began_ = Clock::now();
    if (options_.rate > 0) {
      arrive();
    } else {
      for (int64_t i = 0; i < options_.concurrency; ++i) send_next();
    }
    io_.run();
    result_.seconds = std::chrono::duration<double>(Clock::now() - began_).count();
    return std::move(result_);
  }

 private:
  // Of the request that is made next; nothing where lengths are drawn.
  const RequestLength* listed() const {
    return options_.lengths.empty() ? nullptr : &options_.lengths[requests_.size() % options_.lengths.size()];
  }

  std::string make_request() {
    std::vector<int64_t> prompt = prefix_;
    const int64_t prompt_tokens = listed() ? listed()->prompt_tokens : drawn(random_, options_.prompt_tokens);
    while (static_cast<int64_t>(prompt.size()) < options_.shared_prefix + prompt_tokens)
      prompt.push_back(drawn(random_, options_.token_ids));
    const int64_t output_tokens = listed() ? listed()->output_tokens : drawn(random_, options_.output_tokens);
    nlohmann::json body{{"prompt", prompt}, {"max_tokens", output_tokens},
                        {"temperature", 0}, {"ignore_eos", true},
                        {"stream", true},   {"stream_options", {{"include_usage", true}}}};
    if (!options_.models.empty()) body["model"] = options_.models[requests_.size() % options_.models.size()];
    const std::string text = body.dump();
    return "POST /v1/completions HTTP/1.1\r\nHost: " + options_.host + ":" + options_.port +
           "\r\nContent-Type: application/json\r\nConnection: close\r\n" +
           (options_.api_key.empty() ? "" : "Authorization: Bearer " + options_.api_key + "\r\n") +
           "Content-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text;
  }

  void send_next() {
    if (next_ == requests_.size()) return;
    const size_t index = next_++;
    std::make_shared<Exchange>(io_, began_, result_.requests[index], [this] {
      if (options_.rate == 0) send_next();
    })->start(endpoints_, std::move(requests_[index]));
  }

  // Poisson: the times between two arrivals are exponential.
  void arrive() {
    if (next_ == requests_.size()) return;
    send_next();
    arrival_ += -std::log(1 - static_cast<double>(random_.uniform())) / options_.rate;
    timer_.expires_at(began_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(arrival_)));
    timer_.async_wait([this](error_code error) {
      if (!error) arrive();
    });
  }

  const LoadOptions options_;
  RandomStream random_;
  std::vector<int64_t> prefix_;
  std::vector<std::string> requests_;
  size_t next_ = 0;
  double arrival_ = 0;
  net::io_context io_{1};
  net::steady_timer timer_{io_};
  tcp::resolver::results_type endpoints_;
  Clock::time_point began_;
  LoadResult result_;
};

}  // namespace

LoadResult run_load(const LoadOptions& options) { return Load(options).run(); }

}  // namespace lathe::bench
