// AddressSanitizer's interface, empty without it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define LATHE_SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LATHE_SIMT_ASAN 1
#endif
#endif
#if !defined(LATHE_SIMT_ASAN)
#define LATHE_SIMT_ASAN 0
#endif

#if LATHE_SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace lathe::simt {

inline void poison([[maybe_unused]] const void* address, [[maybe_unused]] size_t bytes) {
#if LATHE_SIMT_ASAN
  __asan_poison_memory_region(address, bytes);
#endif
}
inline void unpoison([[maybe_unused]] const void* address, [[maybe_unused]] size_t bytes) {
#if LATHE_SIMT_ASAN
  __asan_unpoison_memory_region(address, bytes);
#endif
}
inline void start_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* stack,
                         [[maybe_unused]] size_t bytes) {
#if LATHE_SIMT_ASAN
  __sanitizer_start_switch_fiber(save, stack, bytes);
#endif
}
inline void finish_switch([[maybe_unused]] void* saved, [[maybe_unused]] const void** stack,
                          [[maybe_unused]] size_t* bytes) {
#if LATHE_SIMT_ASAN
  __sanitizer_finish_switch_fiber(saved, stack, bytes);
#endif
}

}  // namespace lathe::simt
