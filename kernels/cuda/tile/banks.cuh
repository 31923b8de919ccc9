// How shared memory serves a warp: 32 banks of 4 bytes, and 128 bytes at a time, which are the accesses of 8 lanes at
// 16 bytes each, of 16 lanes at 8 or of 32 at 4. Lanes served together wait for each other when they want different
// words of one bank; lanes that want the same bytes share them. Every tile asserts how often its accesses go to a bank;
// nothing here runs.
#pragma once

#include "kernels/cuda/device.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// How often the busiest bank is asked while one access of a warp is served, offset(lane) the place of a lane's `bytes`
// (4, 8 or 16) in bytes: 1 without conflicts. Narrower accesses count as the 4-byte word that they lie in.
template <class Offset>
constexpr int bank_passes(int bytes, const Offset& offset) {
  const int together = 128 / bytes;
  int most = 0;
  for (int first = 0; first < 32; first += together) {
    int places[32] = {}, asked[32] = {};
    for (int i = 0; i < together; ++i) {
      places[i] = offset(first + i) / bytes;
      bool shared = false;
      for (int j = 0; j < i; ++j) shared = shared || places[j] == places[i];
      if (shared) continue;
      int& count = asked[places[i] % together];
      if (++count > most) most = count;
    }
  }
  return most;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
