// HTTP requests as a Hub's protocol needs them, over libcurl: redirects are followed one by one, so that a token goes
// to the server that it is meant for and to no other.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace lathe::hub {

// A connection that could not be made, or that broke. `again`: the same request may succeed later.
class TransferError : public ResourceError {
 public:
  TransferError(const std::string& reason, bool may_succeed_later) : ResourceError(reason), again(may_succeed_later) {}
  bool again;
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string, std::less<>> headers;  // names in lower case; the last of each
  std::string body;  // of an answer that went to no sink, at most its first 64 MiB
  std::string url;   // that answered, after redirects

  // "" where there is none.
  const std::string& header(std::string_view name) const;
};

struct HttpRequest {
  enum class Method { get, head };
  // never: the first answer. same_origin: those that stay on the server, as a HEAD that asks what a link stands for.
  enum class Redirects { same_origin, all };

  Method method = Method::get;
  std::string url;
  std::string token;                 // sent to the server of `url` alone; "" for none
  std::vector<std::string> headers;  // "Range: bytes=5-"
  Redirects redirects = Redirects::all;
  // Gets the body of a 2xx answer piece by piece, with its status and headers. What it throws ends the request.
  std::function<void(const HttpResponse&, std::string_view)> sink;
};

struct HttpTimeouts {
  int connect_s = 15;
  int stalled_s = 60;  // without a byte
};

class HttpClient {
 public:
  // ResourceError where libcurl is not installed.
  explicit HttpClient(HttpTimeouts timeouts = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Any status is an answer. TransferError for none, a redirect without end, or one from https to http.
  HttpResponse send(const HttpRequest& request);

 private:
  struct State;
  HttpResponse send_once(const HttpRequest& request, const std::string& url, bool with_token);
  std::unique_ptr<State> state_;
};

// Each byte but letters, digits and "-_.~" (and '/', where it is kept) as %XX.
std::string url_escaped(std::string_view text, bool keep_slashes);

}  // namespace lathe::hub
