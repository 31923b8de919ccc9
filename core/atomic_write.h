// Files and directories that appear whole or not at all: written aside, synced, then renamed.
//
// The temporary of `folder/name` is `folder/.name.writing-PID-N`, locked with flock while its writer lives. A writer
// that is killed leaves it behind; the next writer of the same target finds it unlocked and removes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace lathe {

// A file being written beside its final name, in a folder that exists. Without commit() the destructor removes it and
// the old file stands. Every failure (a full disk, no permission, a target that is no regular file) throws
// ResourceError with the path, the bytes written so far and the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();  // fsync, rename over the final name, fsync of the folder; once

 private:
  [[noreturn]] void fail(const char* action, int reason) const;

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  int64_t written_bytes_ = 0;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view text);

// A directory filled under a temporary name, in a folder that exists. commit() syncs every file in it, then puts it in
// place. An existing target is replaced only after the new one is whole, by exchanging the two names in one step and
// removing the old one under its temporary name: killed at any moment, the target is the whole old or the whole new.
//
// A file system that cannot exchange takes two steps: target → `.name.replaced`, temporary → target. Killed between
// them, the target is missing and `.name.replaced` is the whole old one; recover_directory() puts it back.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(const std::filesystem::path& path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  const std::filesystem::path& staging() const { return temporary_; }  // write files here
  void commit();                                                       // once

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;  // holds the lock
};

// Ends the replacement of a directory that a killed process began: puts the old one back where the target is missing,
// else removes it. The constructor above does it; readers do it before they open `path`. Not while another process
// may be committing the same target.
void recover_directory(const std::filesystem::path& path);

}  // namespace lathe
