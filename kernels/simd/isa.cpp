#include "kernels/simd/isa.h"

#include <cpuid.h>

#include <cstdlib>
#include <string>

#include "core/error.h"

namespace lathe::kernels {
namespace {

constexpr Isa all_sets[] = {Isa::avx512_bf16, Isa::avx512, Isa::avx2, Isa::baseline};

bool has_avx512_bf16_bit() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1u << 5)) != 0;
}

Isa choose() {
  const char* forced = std::getenv("LATHE_ISA");
  for (Isa isa : all_sets) {
    if (forced == nullptr ? machine_has(isa) : name_of(isa) == forced) {
      if (machine_has(isa)) return isa;
      throw ConfigError("LATHE_ISA", std::string(forced) + " is not among this machine's instruction sets");
    }
  }
  throw ConfigError("LATHE_ISA", std::string("expected baseline, avx2, avx512 or avx512_bf16, found ") + forced);
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
  }
  return false;
}

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::baseline: return "baseline";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
  }
  return "?";
}

}  // namespace lathe::kernels
