// A block's scale and the codebook in device code. For .cu files.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/nf4/bodies.h"
#include "kernels/nf4/codebook.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int nf4_nested_elements = 256;

// What a kernel gets by value: 1 KB of arguments, read once for each block of threads.
struct Nf4Tables {
  Nf4Codebook codebook;
  float map[256];
};

inline Nf4Tables nf4_tables(const Nf4ScaleArgs& scales) {
  Nf4Tables tables;
  tables.codebook = nf4_codebook;
  for (int i = 0; i < 256; ++i) tables.map[i] = scales.map == nullptr ? 0.0f : scales.map[i];
  return tables;
}

// The tables in shared memory. 16 values lie in 16 banks: whatever codes a warp looks up, none waits for another.
struct Nf4SharedTables {
  float values[16];
  float map[256];
};

// Called by all threads; a barrier must follow.
__device__ __forceinline__ void fill_tables(Nf4SharedTables& shared, const Nf4Tables& tables) {
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += static_cast<int>(blockDim.x)) {
    if (i < 16) shared.values[i] = tables.codebook.values[i];
    shared.map[i] = tables.map[i];
  }
}

__device__ __forceinline__ float nf4_scale(const Nf4ScaleArgs& from, const float* map, int64_t block) {
  if (from.absmax != nullptr) return from.absmax[block];
  const float product = map[from.codes[block]] * from.nested_absmax[block / nf4_nested_elements];
  return product + *from.offset;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
