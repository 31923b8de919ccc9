#include "core/hub/download.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "core/error.h"
#include "core/hub/partial_file.h"
#include "core/json.h"
#include "core/json_value.h"
#include "core/mapped_file.h"

namespace lathe::hub {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string trimmed(const std::string& text) {
  const char* blanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(blanks);
  return begin == text.npos ? "" : text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

std::string environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? "" : trimmed(value);
}

std::string token_of_environment() {
  for (const char* variable : {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
    if (const std::string token = environment(variable); !token.empty()) return token;
  if (is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return "";
  const std::string named = environment("HF_TOKEN_PATH");
  const fs::path path = named.empty() ? hf_home() / "token" : fs::path(named);
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) ? trimmed(file_text(path)) : "";
}

bool may_succeed_later(int status) { return status == 408 || status == 429 || status / 100 == 5; }

// What a status that is no success means here, and what to do.
[[noreturn]] void refuse(const HttpResponse& response, const RepositoryId& id, const std::string& file,
                         const HubSettings& settings) {
  const std::string what = file.empty() ? id.name : id.name + "/" + file;
  const std::string page = settings.endpoint + "/" + id.name;
  const std::string& code = response.header("x-error-code");
  const std::string with_token =
      settings.token.empty()
          ? "set HF_TOKEN to a token of an account that may read it (" + settings.endpoint + "/settings/tokens)"
          : "the token given may not read it: check that it is valid and has the scope "
            "(" +
                settings.endpoint + "/settings/tokens)";
  std::string reason;
  if (code == "GatedRepo") {
    reason = "is gated: ask for access on " + page + ", then " + with_token;
  } else if (response.status == 401 || response.status == 403) {
    reason = "is not there, or not open to you; check the name on " + page + ", or " + with_token;
  } else if (code == "RevisionNotFound" || (response.status == 404 && file.empty() && code != "RepoNotFound")) {
    reason = "has no revision " + id.revision + ", or is not there: see " + page;
  } else if (response.status == 404) {
    reason = file.empty() ? "is not there: see " + page : "is listed, but not there";
  } else if (response.status == 429) {
    reason = "the server has had too many requests: try again later, or with HF_TOKEN set";
  } else {
    reason = "the server fails: try again later";
  }
  const std::string& told = response.header("x-error-message");
  throw ResourceError(what + ": " + reason + " (" + std::to_string(response.status) +
                      (told.empty() ? "" : ", " + told.substr(0, 200)) + ")");
}

// "W/\"abc\"" → "abc"
std::string plain_etag(std::string text) {
  if (text.starts_with("W/")) text = text.substr(2);
  if (text.size() > 1 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return text;
}

bool is_safe_etag(const std::string& etag) {
  return !etag.empty() && etag.size() <= 128 && etag[0] != '.' &&
         std::all_of(etag.begin(), etag.end(), [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; });
}

std::optional<int64_t> size_in(const std::string& text) {
  if (text.empty() || text.size() > 18 ||
      !std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); }))
    return std::nullopt;
  return std::stoll(text);
}

// Where the bytes of a 206 begin: "bytes 5-9/10" → 5.
std::optional<int64_t> range_begin(const std::string& content_range) {
  if (!content_range.starts_with("bytes ")) return std::nullopt;
  return size_in(content_range.substr(6, content_range.find('-') - 6));
}

void check_space(const fs::path& folder, const std::string& file, int64_t missing) {
  struct statvfs disk = {};
  if (::statvfs(folder.c_str(), &disk) != 0) return;
  const auto free = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  if (missing <= free) return;
  throw ResourceError(file + ": " + std::to_string(missing >> 20) + " MiB are to be fetched, but only " +
                      std::to_string(free >> 20) + " MiB are free in " + folder.string() +
                      ": make room, or name a folder on another disk in HF_HUB_CACHE");
}

Listing read_listing(const ordered_json& answer, const std::string& url) {
  const auto fail = [&](const std::string& what) {
    throw FormatError(url, -1, what + "; is this the endpoint of a Hub?");
  };
  if (!answer.is_object()) fail("expected an object");
  Listing listing;
  const auto commit = answer.find("sha");
  if (commit == answer.end() || !commit->is_string()) fail("has no \"sha\" of a commit");
  listing.commit = commit->get<std::string>();
  if (!is_safe_file_name(listing.commit) || listing.commit.find('/') != std::string::npos)
    fail("has a \"sha\" that is none");
  const auto siblings = answer.find("siblings");
  if (siblings == answer.end() || !siblings->is_array()) fail("has no list of \"siblings\"");
  for (const ordered_json& sibling : *siblings) {
    if (!sibling.is_object() || !sibling.contains("rfilename") || !sibling["rfilename"].is_string())
      fail("has a sibling without \"rfilename\"");
    HubFile file{sibling["rfilename"].get<std::string>(), std::nullopt};
    if (!is_safe_file_name(file.name))
      fail("names a file that would lie outside its folder: " + json_excerpt(file.name));
    if (const auto size = sibling.find("size"); size != sibling.end() && size->is_number_unsigned())
      file.size = json_integer(*size, "size", 0, INT64_MAX, url);
    listing.files.push_back(std::move(file));
  }
  const auto card = answer.find("cardData");
  if (card != answer.end() && card->is_object() && card->contains("license") && (*card)["license"].is_string())
    listing.license = (*card)["license"].get<std::string>();
  return listing;
}

}  // namespace

HubSettings HubSettings::of_environment() {
  HubSettings settings;
  if (const std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) settings.endpoint = endpoint;
  settings.token = token_of_environment();
  settings.offline = is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
  return settings;
}

Hub::Hub(HubSettings settings, Cache cache)
    : settings_(std::move(settings)), cache_(std::move(cache)), http_(settings_.timeouts) {
  while (settings_.endpoint.ends_with('/')) settings_.endpoint.pop_back();
  // It becomes a line of every request.
  const auto printable = [](unsigned char c) { return c > 0x20 && c < 0x7F; };
  if (!std::all_of(settings_.token.begin(), settings_.token.end(), printable))
    throw ConfigError("token", "has characters that no token has; expected the text that begins with hf_");
}

// Again, where a moment later may be better.
HttpResponse Hub::send(const HttpRequest& request) {
  for (int attempt = 1;; ++attempt) {
    try {
      HttpResponse response = http_.send(request);
      if (!may_succeed_later(response.status) || attempt == settings_.tries) return response;
    } catch (const TransferError& error) {
      if (!error.again || attempt == settings_.tries) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(settings_.first_wait_ms << (attempt - 1)));
  }
}

Listing Hub::list(const RepositoryId& id) {
  HttpRequest request;
  request.url =
      settings_.endpoint + "/api/models/" + id.name + "/revision/" + url_escaped(id.revision, false) + "?blobs=true";
  request.token = settings_.token;
  const HttpResponse response = send(request);
  if (response.status != 200) refuse(response, id, "", settings_);
  return read_listing(parse_json(response.body, request.url), request.url);
}

fs::path Hub::fetch(const std::string& repository, const std::string& commit, const HubFile& file,
                    const DownloadProgress& progress) {
  const fs::path place = cache_.snapshot(repository, commit) / file.name;
  std::error_code ignored;
  if (fs::exists(place, ignored)) return place;  // a link to nothing is none
  const std::string url = settings_.endpoint + "/" + repository + "/resolve/" + url_escaped(commit, false) + "/" +
                          url_escaped(file.name, true);
  HttpRequest request;
  request.method = HttpRequest::Method::head;
  request.url = url;
  request.token = settings_.token;
  request.redirects = HttpRequest::Redirects::same_origin;
  const HttpResponse head = send(request);
  if (head.status / 100 != 2 && head.status / 100 != 3) refuse(head, {repository, commit}, file.name, settings_);
  const std::string& linked = head.header("x-linked-etag");
  const std::string etag = plain_etag(linked.empty() ? head.header("etag") : linked);
  if (!is_safe_etag(etag))
    throw FormatError(url, -1,
                      "the server gives no ETag by which the file can be kept; is this the endpoint of a Hub?");
  std::optional<int64_t> size = size_in(head.header("x-linked-size"));
  if (!size && head.status / 100 == 2) size = size_in(head.header("content-length"));
  if (!size) size = file.size;

  const LockFile lock(cache_.lock(repository, etag));
  if (!fs::exists(cache_.blob(repository, etag), ignored)) fetch_blob(repository, file, url, etag, size, progress);
  cache_.link(repository, commit, file.name, etag);
  return place;
}

void Hub::fetch_blob(const std::string& repository, const HubFile& file, const std::string& url,
                     const std::string& etag, std::optional<int64_t> size, const DownloadProgress& progress) {
  PartialFile part(cache_.blob(repository, etag), etag, size);
  const bool resumed = part.bytes() > 0;
  if (size) check_space(cache_.repository(repository), file.name, *size - part.bytes());
  const auto whole = [&] { return size && part.bytes() == *size; };

  int attempt = 1;
  // An answer that ends early without an error, as servers without a Content-Length give it, is a broken connection.
  for (bool ended = false; !whole() && !(ended && !size);) {
    const int64_t before = part.bytes();
    HttpRequest request;
    request.url = url;
    request.token = settings_.token;
    if (before > 0) request.headers.push_back("Range: bytes=" + std::to_string(before) + "-");
    bool first = true;
    request.sink = [&](const HttpResponse& response, std::string_view piece) {
      // A server that knows no ranges sends the file from its start.
      if (first && before > 0 && (response.status != 206 || range_begin(response.header("content-range")) != before)) {
        if (response.status == 206)
          throw FormatError(url, -1, "the server sent another part of the file than it was asked for");
        part.start_over();
      }
      first = false;
      if (size && part.bytes() + static_cast<int64_t>(piece.size()) > *size)
        throw FormatError(url, -1,
                          "the server sent more than the " + std::to_string(*size) + " bytes that it announced");
      part.append(piece);
      if (progress) progress(file.name, part.bytes(), size.value_or(part.bytes()));
    };
    std::string reason;
    try {
      const HttpResponse response = http_.send(request);
      ended = response.status / 100 == 2;
      if (response.status == 416) part.start_over();  // what is here is longer than the file is now
      if (!ended && response.status != 416 && !may_succeed_later(response.status))
        refuse(response, {repository, ""}, file.name, settings_);
      reason = ended ? "the connection ended early" : "the server answered " + std::to_string(response.status);
    } catch (const TransferError& error) {
      if (!error.again) throw;
      reason = error.what();
    }
    if (whole() || (ended && !size)) break;
    attempt = part.bytes() > before ? 1 : attempt + 1;  // who makes progress may go on
    if (attempt > settings_.tries)
      throw ResourceError(file.name + ": " + std::to_string(part.bytes()) + " of " +
                          (size ? std::to_string(*size) : "unknown") + " bytes fetched, then " + reason + " (" +
                          std::to_string(settings_.tries) + " tries); run the same command to go on from there");
    std::this_thread::sleep_for(std::chrono::milliseconds(settings_.first_wait_ms << (attempt - 1)));
  }
  if (part.commit()) return;
  throw FormatError(url, -1,
                    std::string("the bytes are not those that the server announced (hash ") + etag + ")" +
                        (resumed ? ", perhaps because of what an earlier try had left; it is removed: fetch again"
                                 : "; nothing of them is kept: fetch again, or from another endpoint"));
}

}  // namespace lathe::hub
