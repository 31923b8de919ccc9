// Which instruction set the CPU bodies run with: the best that the machine has, or what LATHE_ISA forces.
#pragma once

#include <string_view>

namespace lathe::kernels {

enum class Isa { baseline, avx2, avx512, avx512_bf16 };

// The set in use. Read once from CPUID and the environment variable LATHE_ISA; a ConfigError when LATHE_ISA is
// unknown or the machine lacks it.
Isa active_isa();
// For tests that run one case under every set the machine has. Not thread-safe.
void set_active_isa(Isa isa);
bool machine_has(Isa isa);
std::string_view name_of(Isa isa);

}  // namespace lathe::kernels
