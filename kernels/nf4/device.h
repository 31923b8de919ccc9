// A block's scale and the codebook in device code. For .cu files.
#pragma once

#include "kernels/cuda/row.h"
#include "kernels/nf4/bodies.h"
#include "kernels/nf4/codebook.h"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

inline constexpr int nf4_nested_elements = 256;

// What a kernel gets by value, and reads once for each block of threads.
struct alignas(16) Nf4Tables {
  float values[16];
  float map[256];
};

inline Nf4Tables nf4_tables(const Nf4ScaleArgs& scales) {
  Nf4Tables tables;
  for (int i = 0; i < 16; ++i) tables.values[i] = nf4_codebook.values[i];
  for (int i = 0; i < 256; ++i) tables.map[i] = scales.map == nullptr ? 0.0f : scales.map[i];
  return tables;
}

// The tables in shared memory. 16 values lie in 16 banks: whatever codes a warp looks up, none waits for another.
using Nf4SharedTables = Nf4Tables;

// Called by so many threads, all of a block or some; a barrier must follow. Arguments that differ from lane to lane are
// read one after the other, so each is four numbers.
__device__ __forceinline__ void fill_tables(Nf4SharedTables& shared, const Nf4Tables& tables, int thread, int threads) {
  constexpr int fours = sizeof(Nf4Tables) / sizeof(float4);
  const float* const from = tables.values;
  float* const to = shared.values;
  for (int i = thread; i < fours; i += threads) store_vector(to + 4 * i, load_vector<float4>(from + 4 * i));
}

// Blocks have 2^nf4_block_bits elements: element i is in block i >> bits. A division of 64 bits is a hundred
// instructions on a card.
inline int nf4_block_bits(int64_t block_size) {
  int bits = 0;
  while (int64_t{1} << bits < block_size) ++bits;
  return bits;
}

// What is read of a block's scale, so that it can be on its way before the tables are needed.
struct Nf4RawScale {
  float value = 0.0f;
  uint8_t code = 0;
};
__device__ __forceinline__ Nf4RawScale nf4_read_scale(const Nf4ScaleArgs& from, int64_t block) {
  if (from.absmax != nullptr) return {from.absmax[block]};
  return {from.nested_absmax[block / nf4_nested_elements], from.codes[block]};
}
__device__ __forceinline__ float nf4_scale(const Nf4ScaleArgs& from, const float* map, Nf4RawScale raw) {
  if (from.absmax != nullptr) return raw.value;
  const float product = map[raw.code] * raw.value;
  return product + *from.offset;
}

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
