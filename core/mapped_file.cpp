#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace lathe {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, const std::string& action, const std::string& reason) {
  throw ResourceError("cannot " + action + " " + path.string() + ": " + reason);
}

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: a FIFO is refused below instead of blocking here.
  const Descriptor descriptor{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (descriptor.value < 0) refuse(path, "open", std::strerror(errno));
  struct stat status = {};
  if (::fstat(descriptor.value, &status) != 0) refuse(path, "examine", std::strerror(errno));
  if (S_ISDIR(status.st_mode)) refuse(path, "map", "it is a directory, a file was expected");
  if (!S_ISREG(status.st_mode)) refuse(path, "map", "it is not a regular file");

  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  if (status.st_size == 0) return file;
  const size_t size = static_cast<size_t>(status.st_size);
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor.value, 0);
  if (data == MAP_FAILED) refuse(path, "map", std::to_string(size) + " bytes: " + std::strerror(errno));
  file->data_ = static_cast<const std::byte*>(data);
  file->size_ = size;
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release_pages() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

std::string file_text(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

}  // namespace lathe
