// Fetches the files of a repository from a Hub into its cache, whole or not at all, going on where an earlier try
// ended.
//
// The protocol is the Hugging Face Hub's, which mirrors and private servers speak, too:
//   GET  ENDPOINT/api/models/ORG/NAME/revision/REVISION?blobs=true
//        {"sha": COMMIT, "siblings": [{"rfilename", "size"}]}
//   HEAD ENDPOINT/ORG/NAME/resolve/COMMIT/FILE    X-Linked-Etag or ETag: the file's hash; X-Linked-Size
//   GET  the same, which may redirect to a store of large files; Range goes on with a part
// A hash of 64 digits is the file's SHA-256, one of 40 that of git's blob: SHA-1 of "blob SIZE\0" and the file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/hub/cache.h"
#include "core/hub/http.h"

namespace lathe::hub {

struct HubSettings {
  std::string endpoint = "https://huggingface.co";
  std::string token;  // "" for none
  bool offline = false;
  HttpTimeouts timeouts;
  int tries = 5;             // of a request that a moment later may succeed
  int first_wait_ms = 1000;  // before the second; each next one is twice as long

  // HF_ENDPOINT; HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or the file that HF_TOKEN_PATH names (HF_HOME/token), which
  // HF_HUB_DISABLE_IMPLICIT_TOKEN turns off; HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE.
  static HubSettings of_environment();
};

struct HubFile {
  std::string name;             // within the repository, folders divided by '/'
  std::optional<int64_t> size;  // in bytes, where the listing has it
};

struct Listing {
  std::string commit;
  std::vector<HubFile> files;
  std::string license;  // "" where the repository names none
};

// What is told while bytes come in: the file's name, and of all of it what is there.
using DownloadProgress = std::function<void(const std::string& file, int64_t done, int64_t size)>;

class Hub {
 public:
  Hub(HubSettings settings, Cache cache);

  // Every file of a revision. ResourceError for a repository that is not there or not open to this token, with what to
  // do about it; FormatError for an answer that is no listing.
  Listing list(const RepositoryId& id);
  // One file of a commit, in the cache; where it is there, no byte is fetched. Its path in the snapshot. ResourceError:
  // the same, a disk that is full, a connection that stays broken (what came is kept for the next try). FormatError:
  // bytes that are not those that the Hub announced.
  std::filesystem::path fetch(const std::string& repository, const std::string& commit, const HubFile& file,
                              const DownloadProgress& progress = {});
  const Cache& cache() const { return cache_; }

 private:
  HttpResponse send(const HttpRequest& request);
  void fetch_blob(const std::string& repository, const HubFile& file, const std::string& url, const std::string& etag,
                  std::optional<int64_t> size, const DownloadProgress& progress);

  HubSettings settings_;
  Cache cache_;
  HttpClient http_;
};

}  // namespace lathe::hub
