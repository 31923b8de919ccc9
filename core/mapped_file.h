// A whole file mapped read-only. Pages are shared with the page cache: mapping costs no memory until touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace lathe {

class MappedFile {
 public:
  // Throws ResourceError when the file cannot be opened or mapped (says why). An empty file maps to no bytes.
  // Files are replaced by rename (core/atomic_write.h), never shortened in place: that would fault the reader.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Takes the pages read so far out of this process's resident memory, not out of the page cache: they are mapped again
  // when they are read again. For what is read once and copied.
  void release_pages() const;

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

// A copy of a file's contents, for what is small. ResourceError as MappedFile::open().
std::string file_text(const std::filesystem::path& path);

}  // namespace lathe
