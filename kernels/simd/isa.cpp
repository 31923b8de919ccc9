#include "kernels/simd/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>
#include <string>

#include "core/error.h"

namespace lathe::kernels {
namespace {

bool has_avx512_bf16_bit() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1u << 5)) != 0;
}

bool has_amx_bits() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24, int8 = 1u << 25, all = bf16 | tile | int8;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & all) == all;
}

// Linux saves tiles only for processes that ask, which a sandbox may forbid.
bool may_use_tiles() {
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = has_amx_bits() && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return permitted;
}

Isa choose() {
  const char* forced = std::getenv("LATHE_ISA");
  for (size_t i = std::size(every_isa); i-- > 0;) {
    const Isa isa = every_isa[i];
    if (forced == nullptr ? machine_has(isa) : name_of(isa) == forced) {
      if (machine_has(isa)) return isa;
      throw ConfigError("LATHE_ISA", std::string(forced) + " is not among this machine's instruction sets");
    }
  }
  throw ConfigError("LATHE_ISA", std::string("expected baseline, avx2, avx512, avx512_bf16 or amx, found ") + forced);
}

Isa& active() {
  static Isa isa = choose();
  return isa;
}

}  // namespace

Isa active_isa() { return active(); }

void set_active_isa(Isa isa) {
  if (!machine_has(isa))
    throw ConfigError("isa", std::string(name_of(isa)) + " is not among this machine's instruction sets");
  active() = isa;
}

bool machine_has(Isa isa) {
  // __builtin_cpu_supports also checks that the operating system saves the wider registers.
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::baseline: return true;
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::avx512: return avx512;
    case Isa::avx512_bf16: return avx512 && __builtin_cpu_supports("avx512vnni") && has_avx512_bf16_bit();
    case Isa::amx: return machine_has(Isa::avx512_bf16) && may_use_tiles();
  }
  return false;
}

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::baseline: return "baseline";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::amx: return "amx";
  }
  return "?";
}

}  // namespace lathe::kernels
