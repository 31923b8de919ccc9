// What runtime.cu defines once for cards and once for simt; runtime.h joins them.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"

#define LATHE_DEVICE_LAYER(space)                                                    \
  namespace lathe::kernels::space {                                                  \
  std::string why_unavailable(int index);                                            \
  void copy_in(int index, void* to, const void* from, int64_t bytes);                \
  void copy_out(int index, void* to, const void* from, int64_t bytes);               \
  void copy_within(int index, void* to, const void* from, int64_t bytes);            \
  void synchronize(int index);                                                       \
  }
LATHE_DEVICE_LAYER(cuda)
LATHE_DEVICE_LAYER(simt)
