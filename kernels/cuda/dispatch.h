// LATHE_CUDA_BODY(name, Args): a device's body as kernels/dispatch.h describes it, and lathe::kernels::device::name(args, device), which
// calls it.
#pragma once

#include "core/device.h"

#if defined(LATHE_CUDA_NAMESPACE)
#define LATHE_CUDA_BODY(name, Args)                \
  namespace lathe::kernels::LATHE_CUDA_NAMESPACE { \
  void name(const Args& args);                     \
  }
#else
#include "kernels/dispatch.h"
#if defined(LATHE_WITH_CUDA)
#define LATHE_CALL_CUDA(name, args) cuda::name(args)
#else
#define LATHE_CALL_CUDA(name, args) void()
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
#endif
