#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/caching_allocator.h"
#include "core/huge_pages.h"

namespace lathe {
namespace {

constexpr int64_t mapped_from_bytes = 256 << 10;

void* take(int64_t bytes) {
  // Block sizes are multiples of 64.
  if (bytes < mapped_from_bytes) return std::aligned_alloc(64, static_cast<size_t>(bytes));
  return bytes < huge_page_bytes ? map_pages(bytes) : map_huge_pages(bytes);
}

// Never destroyed: what it gave may be given back by destructors of other static objects.
HugePageBlocks& weights() {
  static HugePageBlocks& blocks = *new HugePageBlocks;
  return blocks;
}

void* take_weights(int64_t bytes) { return bytes < page_bytes ? take(bytes) : weights().take(bytes); }

void give(void* block, int64_t bytes) {
  if (bytes >= page_bytes && weights().give(block, bytes)) return;
  if (bytes < mapped_from_bytes) {
    std::free(block);
  } else {
    ::munmap(block, static_cast<size_t>(bytes));
  }
}

// The kB figure of a line such as "VmHWM:     1234 kB", in bytes; -1 where the file or the line is missing.
int64_t kilobytes_line(const char* path, const char* name) {
  std::FILE* const file = std::fopen(path, "re");
  if (file == nullptr) return -1;
  int64_t bytes = -1;
  char line[256];
  while (bytes < 0 && std::fgets(line, sizeof line, file) != nullptr) {
    const size_t length = std::strlen(name);
    if (std::strncmp(line, name, length) == 0) bytes = std::strtoll(line + length, nullptr, 10) * 1024;
  }
  std::fclose(file);
  return bytes;
}

int64_t number_in(const char* path) {
  std::FILE* const file = std::fopen(path, "re");
  if (file == nullptr) return -1;
  long long number = -1;
  if (std::fscanf(file, "%lld", &number) != 1) number = -1;  // "max": no limit
  std::fclose(file);
  return number;
}

struct ControlGroupFiles {
  const char *limit, *used, *state, *given_back;  // the last: a line of `state`
};

// What the control group may still take, with the file pages that it would give back; the largest number where there
// is no limit.
int64_t bytes_left(const ControlGroupFiles& files) {
  const int64_t limit = number_in(files.limit), used = number_in(files.used);
  if (limit < 0 || used < 0) return INT64_MAX;
  int64_t given_back = 0;
  if (std::FILE* const file = std::fopen(files.state, "re"); file != nullptr) {
    char line[256];
    const size_t length = std::strlen(files.given_back);
    while (std::fgets(line, sizeof line, file) != nullptr)
      if (std::strncmp(line, files.given_back, length) == 0) given_back = std::strtoll(line + length, nullptr, 10);
    std::fclose(file);
  }
  return std::max<int64_t>(0, limit - (used - std::min(used, given_back)));
}

int64_t control_group_bytes() {
  constexpr ControlGroupFiles version_2{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                                        "/sys/fs/cgroup/memory.stat", "inactive_file "};
  constexpr ControlGroupFiles version_1{"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                        "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file "};
  return std::min(bytes_left(version_2), bytes_left(version_1));
}

int64_t free_bytes() {
  int64_t available = kilobytes_line("/proc/meminfo", "MemAvailable:");
  if (available < 0) {  // a bare tree without /proc: what nothing uses at all, which is less
    struct sysinfo system = {};
    available = ::sysinfo(&system) == 0 ? static_cast<int64_t>(system.freeram + system.bufferram) * system.mem_unit : 0;
  }
  return std::min(available, control_group_bytes());
}

}  // namespace

BlockSource system_memory() {
  return {.device = "cpu",
          .take = take,
          .take_weights = take_weights,
          .give = give,
          .free_bytes = free_bytes,
          .host_memory = true};
}

int64_t process_peak_rss_bytes() {
  // Not ru_maxrss first: that survives exec, so a small program would report its shell's peak.
  const int64_t peak = kilobytes_line("/proc/self/status", "VmHWM:");
  if (peak > 0) return peak;
  struct rusage usage = {};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? int64_t{usage.ru_maxrss} * 1024 : 0;
}

}  // namespace lathe
