// A download as far as it came: blobs/ETAG.incomplete, hashed as it grows, so that a file of any size is read once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/hub/digest.h"

namespace lathe::hub {

class PartialFile {
 public:
  // Opens what an earlier try left of `blob`, or an empty file. `size`: of the whole, where it is known.
  PartialFile(std::filesystem::path blob, const std::string& etag, std::optional<int64_t> size);
  ~PartialFile();  // the part stays
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  int64_t bytes() const { return bytes_; }
  // ResourceError for a full disk; what was written before stays.
  void append(std::string_view piece);
  void start_over();
  // Syncs it and gives it the blob's name where the hash is the one announced; removes it and returns false where it is
  // another one.
  bool commit();

 private:
  void begin_digest();
  std::filesystem::path blob_, path_;
  std::string etag_;
  std::optional<int64_t> size_;
  std::optional<Digest> digest_;  // none where the etag is no hash that is known
  int descriptor_ = -1;
  int64_t bytes_ = 0;
};

// Holds a lock file with flock, as huggingface_hub does; waits for whoever has it.
class LockFile {
 public:
  explicit LockFile(const std::filesystem::path& path);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

 private:
  int descriptor_;
};

}  // namespace lathe::hub
