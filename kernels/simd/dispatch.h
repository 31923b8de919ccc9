// LATHE_CPU_BODY(name, Args) declares the bodies `void name(Args)` that cpu.cpp defines once for each instruction
// set, and lathe::kernels::cpu::name, which calls the active one.
#pragma once

#include "kernels/simd/isa.h"

#if defined(__x86_64__)
#define LATHE_CPU_BODY(name, Args)                                  \
  namespace lathe::kernels::baseline { void name(Args args); }      \
  namespace lathe::kernels::avx2 { void name(Args args); }          \
  namespace lathe::kernels::avx512 { void name(Args args); }        \
  namespace lathe::kernels::avx512_bf16 { void name(Args args); }   \
  namespace lathe::kernels::cpu {                                   \
  inline void name(Args args) {                                     \
    switch (active_isa()) {                                         \
      case Isa::baseline: return baseline::name(args);              \
      case Isa::avx2: return avx2::name(args);                      \
      case Isa::avx512: return avx512::name(args);                  \
      case Isa::avx512_bf16: return avx512_bf16::name(args);        \
    }                                                               \
  }                                                                 \
  }
#endif
