// Which instruction set the CPU bodies run with: the best that the machine has, or what LATHE_ISA forces.
#pragma once

#include <string_view>

#include "kernels/simd/inline.h"

namespace lathe::kernels {

// amx is avx512_bf16 with tiles: only products have bodies of their own for it, of bf16 and of blocks of codes.
enum class Isa { baseline, avx2, avx512, avx512_bf16, amx };
inline constexpr Isa every_isa[] = {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

// The set in use. Read once from CPUID and the environment variable LATHE_ISA; a ConfigError when LATHE_ISA is
// unknown or the machine lacks it.
Isa active_isa();
// For tests that run one case under every set the machine has. Not thread-safe.
void set_active_isa(Isa isa);
bool machine_has(Isa isa);
// Whether the set multiplies pairs of bf16.
LATHE_INLINE constexpr bool multiplies_bf16(Isa isa) { return isa == Isa::avx512_bf16 || isa == Isa::amx; }
std::string_view name_of(Isa isa);

}  // namespace lathe::kernels
