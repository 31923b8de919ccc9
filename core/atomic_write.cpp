#include "core/atomic_write.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;

std::string reason_text(int reason) {
  std::string text = std::strerror(reason);
  if (reason == ENOSPC || reason == EDQUOT) text += " (make room on that disk or choose another folder)";
  if (reason == EACCES || reason == EPERM || reason == EROFS) text += " (choose a folder that you may write to)";
  return text;
}

[[noreturn]] void refuse(const char* action, const fs::path& path, int reason) {
  throw ResourceError(std::string("cannot ") + action + " " + path.string() + ": " + reason_text(reason));
}

// "a/b/" names the same target as "a/b".
fs::path without_trailing_slash(const fs::path& path) {
  fs::path normal = path.lexically_normal();
  if (!normal.has_filename()) normal = normal.parent_path();
  if (!normal.has_filename() || normal.filename() == "." || normal.filename() == "..") {
    throw ResourceError("cannot write " + path.string() + ": it does not name a file or folder of its own");
  }
  return normal;
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

std::string temporary_prefix(const fs::path& path) { return "." + path.filename().string() + ".writing-"; }

fs::path replaced_name(const fs::path& path) {
  return folder_of(path) / ("." + path.filename().string() + ".replaced");
}

fs::path next_temporary(const fs::path& path) {
  static std::atomic<uint64_t> count{0};
  return folder_of(path) /
         (temporary_prefix(path) + std::to_string(::getpid()) + "-" + std::to_string(count.fetch_add(1)));
}

// Removes the temporaries that killed writers of the same target left: those that no living writer holds locked.
void sweep_temporaries(const fs::path& path) {
  std::error_code ignored;
  const std::string prefix = temporary_prefix(path);
  for (fs::directory_iterator entry(folder_of(path), ignored), end; entry != end; entry.increment(ignored)) {
    if (!entry->path().filename().string().starts_with(prefix)) continue;
    const int descriptor = ::open(entry->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0) continue;
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) fs::remove_all(entry->path(), ignored);
    ::close(descriptor);
  }
}

// Locks a temporary that was just made. False when another process, cleaning up between the two steps, found it
// unlocked and removed it as a killed writer's.
bool lock_temporary(int descriptor) {
  // A file system without locks fails in another way than EWOULDBLOCK. Nobody can clean up there, so nothing is lost.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  struct stat status = {};
  return ::fstat(descriptor, &status) == 0 && status.st_nlink > 0;
}

void sync_path(const fs::path& path, bool directory) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (directory ? O_DIRECTORY : 0));
  if (descriptor < 0) refuse("open for syncing", path, errno);
  // Some file systems have nothing to sync for a directory and say EINVAL.
  const int reason = ::fsync(descriptor) == 0 || (directory && errno == EINVAL) ? 0 : errno;
  ::close(descriptor);
  if (reason != 0) refuse("sync", path, reason);
}

void sync_tree(const fs::path& root) {
  std::error_code error;
  for (fs::recursive_directory_iterator entry(root, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->is_symlink()) continue;
    if (entry->is_directory() || entry->is_regular_file()) sync_path(entry->path(), entry->is_directory());
  }
  if (error) refuse("list", root, error.value());
  sync_path(root, true);
}

// Puts `staging` in the place of an existing `target`; the old one ends up as `staging` or is already removed.
void replace_directory(const fs::path& staging, const fs::path& target) {
  if (::renameat2(AT_FDCWD, staging.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) refuse("replace", target, errno);
  const fs::path aside = replaced_name(target);
  if (::rename(target.c_str(), aside.c_str()) != 0) refuse("replace", target, errno);
  if (::rename(staging.c_str(), target.c_str()) != 0) {
    const int reason = errno;
    ::rename(aside.c_str(), target.c_str());
    refuse("replace", target, reason);
  }
  std::error_code ignored;
  fs::remove_all(aside, ignored);
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& path) : path_(without_trailing_slash(path)) {
  struct stat target = {};
  const bool exists = ::stat(path_.c_str(), &target) == 0;
  // A rename would replace a device such as /dev/null by a file.
  if (exists && !S_ISREG(target.st_mode)) {
    throw ResourceError("cannot write " + path_.string() + ": it exists and is not a regular file");
  }
  sweep_temporaries(path_);
  for (;;) {
    temporary_ = next_temporary(path_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno == EEXIST) continue;
    if (descriptor_ < 0) refuse("write", path_, errno);
    if (lock_temporary(descriptor_)) break;
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }
  if (exists) ::fchmod(descriptor_, target.st_mode & 07777);  // a replaced file keeps its mode where that is allowed
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::unlink(temporary_.c_str());
  ::close(descriptor_);
}

void AtomicFile::fail(const char* action, int reason) const {
  throw ResourceError(std::string("cannot ") + action + " " + path_.string() + " after " +
                      std::to_string(written_bytes_) + " bytes: " + reason_text(reason));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (descriptor_ < 0) throw Error("write to " + path_.string() + " after its commit");
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("write", errno);
    written_bytes_ += count;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void AtomicFile::commit() {
  if (descriptor_ < 0) throw Error("second commit of " + path_.string());
  if (::fsync(descriptor_) != 0) fail("sync", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename to", errno);
  ::close(std::exchange(descriptor_, -1));
  sync_path(folder_of(path_), true);
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

AtomicDirectory::AtomicDirectory(const fs::path& path) : path_(without_trailing_slash(path)) {
  recover_directory(path_);
  std::error_code ignored;
  if (fs::exists(path_, ignored) && !fs::is_directory(path_, ignored)) {
    throw ResourceError("cannot write " + path_.string() + ": it exists and is not a directory");
  }
  sweep_temporaries(path_);
  for (;;) {
    temporary_ = next_temporary(path_);
    if (::mkdir(temporary_.c_str(), 0777) != 0) {
      if (errno == EEXIST) continue;
      refuse("create", path_, errno);
    }
    descriptor_ = ::open(temporary_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (descriptor_ < 0 && errno != ENOENT) {
      const int reason = errno;
      ::rmdir(temporary_.c_str());
      refuse("open", temporary_, reason);
    }
    if (descriptor_ >= 0 && lock_temporary(descriptor_)) return;
    if (descriptor_ >= 0) ::close(descriptor_);
    ::rmdir(temporary_.c_str());
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (descriptor_ < 0) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  ::close(descriptor_);
}

void AtomicDirectory::commit() {
  if (descriptor_ < 0) throw Error("second commit of " + path_.string());
  sync_tree(temporary_);
  struct stat target = {};
  if (::lstat(path_.c_str(), &target) == 0) {
    replace_directory(temporary_, path_);
  } else if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    refuse("rename to", path_, errno);
  }
  sync_path(folder_of(path_), true);
  // After an exchange the temporary name holds the old directory.
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  ::close(std::exchange(descriptor_, -1));
}

void recover_directory(const fs::path& path) {
  const fs::path target = without_trailing_slash(path);
  const fs::path aside = replaced_name(target);
  struct stat status = {};
  if (::lstat(aside.c_str(), &status) != 0) return;
  std::error_code ignored;
  if (::lstat(target.c_str(), &status) == 0) {
    fs::remove_all(aside, ignored);
  } else if (::rename(aside.c_str(), target.c_str()) != 0) {
    refuse("restore", target, errno);
  }
}

}  // namespace lathe
