#include "train/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace lathe::train {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& output_dir, int descriptor) {
  char text[32] = {};
  const ssize_t count = ::pread(descriptor, text, sizeof text - 1, 0);
  ::close(descriptor);
  const std::string process(text, count > 0 ? std::strspn(text, "0123456789") : 0);
  throw ConfigError("output_dir", "a run is still going on in " + output_dir.string() +
                                      (process.empty() ? "" : " (process " + process + ")") +
                                      "; wait for its end, stop it, or choose another folder");
}

// Whether the open file is the one that has the name: a run that ended in between has removed its own.
bool still_named(int descriptor, const std::filesystem::path& path) {
  struct stat open = {}, named = {};
  return ::fstat(descriptor, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_ino == named.st_ino &&
         open.st_dev == named.st_dev;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& output_dir) : path_(output_dir / ".run.lock") {
  while (true) {
    const int descriptor = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor < 0) throw ResourceError("cannot write " + path_.string() + ": " + std::strerror(errno));
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) refuse(output_dir, descriptor);
    if (still_named(descriptor, path_)) {
      descriptor_ = descriptor;
      break;
    }
    ::close(descriptor);
  }
  const std::string process = std::to_string(::getpid()) + "\n";
  // For the message alone: a full disk leaves it without a number.
  if (::ftruncate(descriptor_, 0) != 0 || ::write(descriptor_, process.data(), process.size()) < 0) return;
}

RunLock::~RunLock() {
  ::unlink(path_.c_str());  // before the lock is let go: afterwards the name may be another run's
  ::close(descriptor_);
}

}  // namespace lathe::train
