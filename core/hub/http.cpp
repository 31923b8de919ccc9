#include "core/hub/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <exception>

#include "core/hub/loaded_library.h"

namespace lathe::hub {
namespace {

constexpr int most_redirects = 10;
constexpr size_t largest_body = size_t{64} << 20;

struct Curl {
  LoadedLibrary library{"libcurl.so.4", "libcurl4"};
  decltype(&curl_global_init) global_init = library.symbol<decltype(curl_global_init)>("curl_global_init");
  decltype(&curl_easy_init) easy_init = library.symbol<decltype(curl_easy_init)>("curl_easy_init");
  decltype(&curl_easy_reset) easy_reset = library.symbol<decltype(curl_easy_reset)>("curl_easy_reset");
  decltype(&curl_easy_cleanup) easy_cleanup = library.symbol<decltype(curl_easy_cleanup)>("curl_easy_cleanup");
  decltype(&curl_easy_perform) easy_perform = library.symbol<decltype(curl_easy_perform)>("curl_easy_perform");
  decltype(&curl_easy_strerror) easy_strerror = library.symbol<decltype(curl_easy_strerror)>("curl_easy_strerror");
  decltype(&curl_slist_append) list_append = library.symbol<decltype(curl_slist_append)>("curl_slist_append");
  decltype(&curl_slist_free_all) list_free = library.symbol<decltype(curl_slist_free_all)>("curl_slist_free_all");
  decltype(&curl_url) url = library.symbol<decltype(curl_url)>("curl_url");
  decltype(&curl_url_cleanup) url_cleanup = library.symbol<decltype(curl_url_cleanup)>("curl_url_cleanup");
  decltype(&curl_url_set) url_set = library.symbol<decltype(curl_url_set)>("curl_url_set");
  decltype(&curl_url_get) url_get = library.symbol<decltype(curl_url_get)>("curl_url_get");
  decltype(&curl_free) free = library.symbol<decltype(curl_free)>("curl_free");

  // curl.h makes macros of these names.
  using SetOption = CURLcode (*)(CURL*, CURLoption, ...);
  using GetInfo = CURLcode (*)(CURL*, CURLINFO, ...);
  SetOption easy_setopt = library.symbol<CURLcode(CURL*, CURLoption, ...)>("curl_easy_setopt");
  GetInfo easy_getinfo = library.symbol<CURLcode(CURL*, CURLINFO, ...)>("curl_easy_getinfo");

  Curl() { global_init(CURL_GLOBAL_DEFAULT); }
};

const Curl& curl() {
  static const Curl loaded;
  return loaded;
}

class Url {
 public:
  explicit Url(const std::string& text) : handle_(curl().url()) {
    if (handle_ == nullptr || curl().url_set(handle_, CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) {
      curl().url_cleanup(handle_);
      throw TransferError("is no address of a server: " + text, false);
    }
  }
  ~Url() { curl().url_cleanup(handle_); }
  Url(const Url&) = delete;
  Url& operator=(const Url&) = delete;

  // Where a Location header of this address leads to.
  std::string resolved(const std::string& location) const {
    Url copy(part(CURLUPART_URL));
    if (curl().url_set(copy.handle_, CURLUPART_URL, location.c_str(), 0) != CURLUE_OK)
      throw TransferError(part(CURLUPART_URL) + " redirects to what is no address: " + location, false);
    return copy.part(CURLUPART_URL);
  }
  std::string scheme() const { return part(CURLUPART_SCHEME); }
  // "https://host:443"
  std::string origin() const {
    return scheme() + "://" + part(CURLUPART_HOST) + ":" + part(CURLUPART_PORT, CURLU_DEFAULT_PORT);
  }

 private:
  std::string part(CURLUPart which, unsigned int flags = 0) const {
    char* text = nullptr;
    if (curl().url_get(handle_, which, &text, flags) != CURLUE_OK) return "";
    std::string copy = text;
    curl().free(text);
    if (which == CURLUPART_HOST || which == CURLUPART_SCHEME)
      std::transform(copy.begin(), copy.end(), copy.begin(), [](unsigned char c) { return std::tolower(c); });
    return copy;
  }
  CURLU* handle_;
};

// One answer as it comes in.
struct Transfer {
  const HttpRequest& request;
  HttpResponse response;
  std::exception_ptr thrown;

  static size_t on_header(char* text, size_t size, size_t count, void* self) {
    static_cast<Transfer*>(self)->header_line({text, size * count});
    return size * count;
  }
  void header_line(std::string_view line) {
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
    if (line.starts_with("HTTP/")) {  // of a new answer, after a 100 or a proxy's
      response.headers.clear();
      const size_t space = line.find(' ');
      response.status = space == line.npos ? 0 : std::atoi(std::string(line.substr(space + 1, 3)).c_str());
      return;
    }
    const size_t colon = line.find(':');
    if (colon == line.npos) return;
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    line.remove_prefix(colon + 1);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    response.headers[name] = line;
  }

  static size_t on_body(char* bytes, size_t size, size_t count, void* self) {
    return static_cast<Transfer*>(self)->body_piece({bytes, size * count}) ? size * count : 0;
  }
  bool body_piece(std::string_view piece) {
    try {
      if (request.sink && response.status / 100 == 2) {
        request.sink(response, piece);
      } else if (response.body.size() + piece.size() > largest_body) {
        throw TransferError(request.url + ": an answer longer than 64 MiB where a short one was expected", false);
      } else {
        response.body += piece;
      }
      return true;
    } catch (...) {  // which must not pass through libcurl
      thrown = std::current_exception();
      return false;
    }
  }
};

// Whether what went wrong may be over in a moment: not a name that does not exist, nor a certificate.
bool may_succeed_later(CURLcode code) {
  switch (code) {
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM: return true;
    default: return false;
  }
}

}  // namespace

struct HttpClient::State {
  HttpTimeouts timeouts;
  CURL* handle = curl().easy_init();
  ~State() { curl().easy_cleanup(handle); }
};

HttpClient::HttpClient(HttpTimeouts timeouts) : state_(std::make_unique<State>()) {
  if (state_->handle == nullptr) throw ResourceError("libcurl cannot be started");
  state_->timeouts = timeouts;
}
HttpClient::~HttpClient() = default;

const std::string& HttpResponse::header(std::string_view name) const {
  static const std::string none;
  const auto found = headers.find(name);
  return found == headers.end() ? none : found->second;
}

HttpResponse HttpClient::send_once(const HttpRequest& request, const std::string& url, bool with_token) {
  const Curl& c = curl();
  CURL* handle = state_->handle;
  c.easy_reset(handle);  // connections stay open
  Transfer transfer{request, {}, nullptr};
  char reason[CURL_ERROR_SIZE] = "";
  curl_slist* headers = c.list_append(nullptr, "User-Agent: lathe/0.1.0");
  // Sizes and ranges are those of the file, not of a compressed one.
  headers = c.list_append(headers, "Accept-Encoding: identity");
  if (with_token) headers = c.list_append(headers, ("Authorization: Bearer " + request.token).c_str());
  for (const std::string& header : request.headers) headers = c.list_append(headers, header.c_str());
  c.easy_setopt(handle, CURLOPT_URL, url.c_str());
  c.easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  c.easy_setopt(handle, CURLOPT_NOBODY, long{request.method == HttpRequest::Method::head});
  c.easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  c.easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  c.easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  c.easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, long{state_->timeouts.connect_s});
  c.easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
  c.easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, long{state_->timeouts.stalled_s});
  c.easy_setopt(handle, CURLOPT_BUFFERSIZE, 512L << 10);
  c.easy_setopt(handle, CURLOPT_ERRORBUFFER, reason);
  c.easy_setopt(handle, CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  c.easy_setopt(handle, CURLOPT_HEADERDATA, &transfer);
  c.easy_setopt(handle, CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  c.easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  const CURLcode code = c.easy_perform(handle);
  c.list_free(headers);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  if (code != CURLE_OK)
    throw TransferError(url.substr(0, url.find('?')) + ": " + (reason[0] != '\0' ? reason : c.easy_strerror(code)),
                        may_succeed_later(code));
  transfer.response.url = url;
  return std::move(transfer.response);
}

HttpResponse HttpClient::send(const HttpRequest& request) {
  const std::string origin = Url(request.url).origin();
  std::string url = request.url;
  for (int hop = 0; hop <= most_redirects; ++hop) {
    const bool same_origin = Url(url).origin() == origin;
    HttpResponse response = send_once(request, url, same_origin && !request.token.empty());
    const std::string& location = response.header("location");
    if (response.status / 100 != 3 || response.status == 304 || location.empty()) return response;
    const std::string next = Url(url).resolved(location);
    if (Url(url).scheme() == "https" && Url(next).scheme() != "https")
      throw TransferError(url.substr(0, url.find('?')) + " redirects to an address without encryption: refused", false);
    if (request.redirects == HttpRequest::Redirects::same_origin && Url(next).origin() != origin) return response;
    url = next;
  }
  throw TransferError(request.url + ": more than " + std::to_string(most_redirects) + " redirects", false);
}

std::string url_escaped(std::string_view text, bool keep_slashes) {
  std::string escaped;
  for (const unsigned char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                       c == '_' || c == '.' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      escaped += static_cast<char>(c);
    } else {
      escaped += '%';
      escaped += "0123456789ABCDEF"[c >> 4];
      escaped += "0123456789ABCDEF"[c & 15];
    }
  }
  return escaped;
}

}  // namespace lathe::hub
