// A Hub on this machine: one repository, whose large files lie on a server of their own, as at the real one.
#pragma once

#include <charconv>
#include <map>
#include <memory>

#include "core/hub/digest.h"
#include "core/json_value.h"
#include "tests/support/local_server.h"

namespace lathe::testing {

inline const std::string hub_commit = "0123456789abcdef0123456789abcdef01234567";

struct HubFileOnServer {
  std::string bytes;
  bool large = false;  // kept on the other server, its etag a SHA-256
  std::string etag() const {
    hub::Digest digest(large ? hub::Digest::Kind::sha256 : hub::Digest::Kind::sha1);
    if (!large) digest.add("blob " + std::to_string(bytes.size()) + std::string(1, '\0'));
    digest.add(bytes);
    return digest.hex();
  }
};

struct LocalHub {
  std::string name = "org/tiny";
  std::map<std::string, HubFileOnServer> files;
  std::string token;  // what it asks for; "" for nothing
  // Answers before the Hub itself does: a fault, or nothing.
  std::function<std::optional<ServerAnswer>(const ServerRequest&)> fault;
  std::function<std::optional<ServerAnswer>(const ServerRequest&)> store_fault;

  LocalServer store{[this](const ServerRequest& request) { return stored(request); }};
  LocalServer server{[this](const ServerRequest& request) { return answer(request); }};

  // With the part that a Range header asks for.
  static ServerAnswer bytes_of(const std::string& bytes, const ServerRequest& request) {
    const std::string range = request.header("Range");
    if (!range.starts_with("bytes=")) return {200, {}, bytes, {}};
    size_t begin = 0;
    std::from_chars(range.data() + 6, range.data() + range.size(), begin);
    if (begin >= bytes.size()) return {416, {}, "", {}};
    return {206,
            {{"Content-Range", "bytes " + std::to_string(begin) + "-" + std::to_string(bytes.size() - 1) + "/" +
                                   std::to_string(bytes.size())}},
            bytes.substr(begin),
            {}};
  }

 private:
  ServerAnswer stored(const ServerRequest& request) const {
    if (store_fault)
      if (auto instead = store_fault(request)) return *instead;
    const auto found = files.find(request.target.substr(1, request.target.find('?') - 1));
    return found == files.end() ? ServerAnswer{404, {}, "", {}} : bytes_of(found->second.bytes, request);
  }

  ServerAnswer answer(const ServerRequest& request) const {
    if (fault)
      if (auto instead = fault(request)) return *instead;
    if (!token.empty() && request.header("Authorization") != "Bearer " + token)
      return {401, {{"X-Error-Code", "GatedRepo"}, {"X-Error-Message", "Access is restricted"}}, "", {}};
    const std::string api = "/api/models/" + name + "/revision/";
    if (request.target.starts_with(api)) {
      const std::string revision = request.target.substr(api.size(), request.target.find('?') - api.size());
      if (revision != "main" && revision != "v1%2Fb" && revision != hub_commit)
        return {404, {{"X-Error-Code", "RevisionNotFound"}}, "", {}};
      nlohmann::json listing = {{"sha", hub_commit}, {"cardData", {{"license", "apache-2.0"}}}};
      for (const auto& [file, content] : files)
        listing["siblings"].push_back({{"rfilename", file}, {"size", content.bytes.size()}});
      return {200, {}, listing.dump(), {}};
    }
    const std::string resolve = "/" + name + "/resolve/" + hub_commit + "/";
    if (!request.target.starts_with(resolve)) return {404, {{"X-Error-Code", "RepoNotFound"}}, "", {}};
    const auto found = files.find(request.target.substr(resolve.size()));
    if (found == files.end()) return {404, {{"X-Error-Code", "EntryNotFound"}}, "", {}};
    const HubFileOnServer& file = found->second;
    if (!file.large) {
      ServerAnswer whole = bytes_of(file.bytes, request);
      whole.headers.emplace_back("ETag", "\"" + file.etag() + "\"");
      whole.headers.emplace_back("X-Repo-Commit", hub_commit);
      return whole;
    }
    return {302,
            {{"Location", store.address() + "/" + found->first + "?signature=1"},
             {"X-Linked-Etag", "\"" + file.etag() + "\""},
             {"X-Linked-Size", std::to_string(file.bytes.size())},
             {"ETag", "\"of the pointer\""},
             {"X-Repo-Commit", hub_commit}},
            "",
            {}};
  }
};

}  // namespace lathe::testing
