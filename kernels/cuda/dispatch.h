// LATHE_CUDA_BODY(name, Args) declares the body `void name(const Args&)` that cuda.cu defines in
// lathe::kernels::LATHE_CUDA_NAMESPACE, once for cards and once for simt, and lathe::kernels::device::name, which calls the
// one for a device. Args holds pointers and numbers only.
#pragma once

#include "core/device.h"

namespace lathe::kernels {

// Throws ResourceError: this program was built without CUDA.
[[noreturn]] void no_cuda_in_this_build();
bool built_with_cuda();
// Later launches of this thread go to that device.
void use_device(Device device);

}  // namespace lathe::kernels

#if defined(LATHE_WITH_CUDA)
#define LATHE_CALL_CUDA(name, args) cuda::name(args)
#else
#define LATHE_CALL_CUDA(name, args) no_cuda_in_this_build()
#endif

#define LATHE_CUDA_BODY(name, Args)                                               \
  namespace lathe::kernels::cuda { void name(const Args& args); }                 \
  namespace lathe::kernels::simt { void name(const Args& args); }                 \
  namespace lathe::kernels::device {                                              \
  inline void name(const Args& args, Device on) {                                 \
    use_device(on);                                                               \
    if (on.kind == DeviceKind::simt) return simt::name(args);                     \
    LATHE_CALL_CUDA(name, args);                                                  \
  }                                                                               \
  }
