// wgmma: products of a warpgroup, computed while its threads go on. The instructions stand in kernels/cuda/ptx/wgmma.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/simt/collectives.h"
#include "kernels/simt/tensor_core.h"

namespace lathe::simt {

// d [64 × n] = a [64 × 16] · b [16 × n] + (adds ? d : 0). A lane gives its n / 2 sums and, where a_registers is not
// null, its four registers of a. Operands in shared memory are read, and sums written, when the warp waits for the
// group: who changes an operand before that, or looks at the registers, is told of it.
struct WgmmaArgs {
  int n = 0;
  TileElement element = TileElement::bf16;
  float* d = nullptr;
  const uint32_t* a_registers = nullptr;
  uint64_t a = 0, b = 0;  // descriptors
  bool a_along_mn = false, b_along_mn = false;
  bool adds = true;
  int rows = 64;  // of a that are there: the others are not read, and their sums are no numbers
};
void wgmma(const WgmmaArgs& args, Where where);
void wgmma_fence(Where where);
void wgmma_commit(Where where);
void wgmma_wait(int groups_left, Where where);

// A descriptor of 128-byte swizzle (PTX manual, "Matrix descriptor format"): where the operand begins and how far it
// is, in bytes, to the next 64 elements (leading) and the next eight lines (stride).
uint64_t wgmma_descriptor(const void* tile, size_t leading_bytes, size_t stride_bytes, Where where);

void begin_wgmma(int threads, int blocks);            // of a cluster of so many blocks, each of so many threads
inline int wgmma_products_under_way = 0;              // of the cluster: looked at by every access of a kernel
bool wgmma_holds(const void* address, size_t bytes);  // in registers of the running thread
bool wgmma_reads(const void* shared, size_t bytes);   // of whichever block of the cluster has that
const Where* unfinished_wgmma();                      // of the running warp

}  // namespace lathe::simt
