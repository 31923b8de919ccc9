// How an operation reaches its bodies. A body is declared once for the CPU and once for devices, as a template over the
// instruction set and over the kind of device (both may take the same arguments):
//   template <Isa>
//   void scale_rows(ScaleArgs args);  // cpu.cpp
//   template <DeviceKind>
//   void scale_rows(const ScaleArgs& args);  // cuda.cu
// cpu.cpp is compiled for each set, cuda.cu by nvcc and for simt. Each compilation defines the template and makes the
// instance it is for: scale_rows<Isa::LATHE_ISA>, scale_rows<DeviceKind::LATHE_CUDA_NAMESPACE>. Here one is chosen:
//   with_isa([&]<Isa isa>() { scale_rows<isa>(args); });
//   with_device(device, [&]<DeviceKind kind>() { scale_rows<kind>(args); });
// Arguments are pointers and numbers. The CPU's come by value, so that the compiler knows that no store changes them.
#pragma once

#include "kernels/cuda/runtime.h"
#include "kernels/simd/isa.h"

#if defined(LATHE_ISA) || defined(LATHE_CUDA_NAMESPACE)
#error "a body calls no other: what chooses one would be compiled for this file's machine alone"
#endif

namespace lathe::kernels {

#if defined(LATHE_WITH_CUDA)
inline constexpr bool built_with_cuda = true;
#else
inline constexpr bool built_with_cuda = false;
#endif

// Calls call.operator()<isa>() with the active instruction set, avx512_bf16 for amx.
template <class Call>
void with_isa(const Call& call) {
  switch (active_isa()) {
    case Isa::baseline: return call.template operator()<Isa::baseline>();
    case Isa::avx2: return call.template operator()<Isa::avx2>();
    case Isa::avx512: return call.template operator()<Isa::avx512>();
    case Isa::amx:
    case Isa::avx512_bf16: return call.template operator()<Isa::avx512_bf16>();
  }
}

// Calls call.operator()<kind>() with cuda or simt, after use_device(device), which refuses a kind that the program
// lacks.
template <class Call>
void with_device(Device device, const Call& call) {
  use_device(device);
#if !defined(LATHE_WITHOUT_SIMT)
  if (device.kind == DeviceKind::simt) return call.template operator()<DeviceKind::simt>();
#endif
  if constexpr (built_with_cuda) call.template operator()<DeviceKind::cuda>();
}

}  // namespace lathe::kernels
