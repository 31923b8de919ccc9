// What the C++ library of the machine that builds wants of a C library newer than 2.31: part of each portable program,
// and of nothing else.
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace {

struct Search {
  uintptr_t address;
  dl_find_object* found;
};

// Whether the object has the address; then where it lies, and its table of unwinding.
int look_into(dl_phdr_info* info, size_t, void* data) {
  const auto* search = static_cast<const Search*>(data);
  uintptr_t begin = UINTPTR_MAX, end = 0, eh_frame = 0;
  bool inside = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info->dlpi_phdr[i];
    const uintptr_t at = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_GNU_EH_FRAME) eh_frame = at;
    if (header.p_type != PT_LOAD) continue;
    begin = at < begin ? at : begin;
    end = at + header.p_memsz > end ? at + header.p_memsz : end;
    inside |= search->address >= at && search->address < at + header.p_memsz;
  }
  if (!inside || eh_frame == 0) return 0;
  *search->found = {};
  search->found->dlfo_map_start = reinterpret_cast<void*>(begin);
  search->found->dlfo_map_end = reinterpret_cast<void*>(end);
  search->found->dlfo_eh_frame = reinterpret_cast<void*>(eh_frame);
  return 1;
}

}  // namespace

extern "C" {

// 2.32. Reference counts are atomic from the start where it is 0.
char __libc_single_threaded = 0;

// 2.35, for exceptions.
int _dl_find_object(void* address, dl_find_object* found) noexcept {
  Search search{reinterpret_cast<uintptr_t>(address), found};
  return dl_iterate_phdr(look_into, &search) == 1 ? 0 : -1;
}

// 2.36, for std::random_device.
uint32_t arc4random() {
  uint32_t value;
  if (getentropy(&value, sizeof value) != 0) std::abort();
  return value;
}
}
