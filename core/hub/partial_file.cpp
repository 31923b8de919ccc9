#include "core/hub/partial_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace lathe::hub {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const char* action, const fs::path& path, int reason) {
  std::string text = std::strerror(reason);
  if (reason == ENOSPC || reason == EDQUOT || reason == EFBIG)
    text += " (make room on that disk, or name a folder on another one in HF_HUB_CACHE; what was fetched is kept)";
  if (reason == EACCES || reason == EPERM || reason == EROFS)
    text += " (name a folder that you may write to in HF_HUB_CACHE)";
  throw ResourceError(std::string("cannot ") + action + " " + path.string() + ": " + text);
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) refuse("create", folder, error.value());
}

// Of the hash that an etag is; nothing for any other etag.
std::optional<Digest::Kind> kind_of(const std::string& etag) {
  const bool hex = std::all_of(etag.begin(), etag.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (hex && etag.size() == 64) return Digest::Kind::sha256;
  if (hex && etag.size() == 40) return Digest::Kind::sha1;
  return std::nullopt;
}

}  // namespace

PartialFile::PartialFile(fs::path blob, const std::string& etag, std::optional<int64_t> size)
    : blob_(std::move(blob)), path_(blob_.string() + ".incomplete"), etag_(etag), size_(size) {
  make_folders(blob_.parent_path());
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) refuse("write", path_, errno);
  begin_digest();
  std::vector<char> piece(size_t{1} << 20);
  for (;;) {
    const ssize_t count = ::read(descriptor_, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) refuse("read", path_, errno);
    if (count == 0) break;
    bytes_ += count;
    if (digest_) digest_->add({piece.data(), static_cast<size_t>(count)});
  }
  if (size_ && bytes_ > *size_) start_over();
}

PartialFile::~PartialFile() { ::close(descriptor_); }

void PartialFile::begin_digest() {
  const std::optional<Digest::Kind> kind = kind_of(etag_);
  // Git hashes the size, too.
  if (!kind || (*kind == Digest::Kind::sha1 && !size_)) return;
  digest_.emplace(*kind);
  if (*kind == Digest::Kind::sha1) digest_->add("blob " + std::to_string(*size_) + std::string(1, '\0'));
}

void PartialFile::append(std::string_view piece) {
  if (digest_) digest_->add(piece);
  while (!piece.empty()) {
    const ssize_t count = ::write(descriptor_, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) refuse("write", path_, errno);
    bytes_ += count;
    piece.remove_prefix(static_cast<size_t>(count));
  }
}

void PartialFile::start_over() {
  if (::ftruncate(descriptor_, 0) != 0 || ::lseek(descriptor_, 0, SEEK_SET) != 0) refuse("empty", path_, errno);
  bytes_ = 0;
  begin_digest();
}

bool PartialFile::commit() {
  if (digest_) {
    std::string announced = etag_;
    std::transform(announced.begin(), announced.end(), announced.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    if (digest_->hex() != announced) {
      ::unlink(path_.c_str());
      return false;
    }
  }
  if (::fsync(descriptor_) != 0) refuse("sync", path_, errno);
  if (::rename(path_.c_str(), blob_.c_str()) != 0) refuse("rename to", blob_, errno);
  return true;
}

LockFile::LockFile(const fs::path& path) {
  make_folders(path.parent_path());
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) refuse("open", path, errno);
  // A file system without locks is used without them: whole files appear by a rename.
  while (::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR) continue;
}

LockFile::~LockFile() { ::close(descriptor_); }

}  // namespace lathe::hub
