// The tiles of products of a few rows by a dense weight: a decode step's (dense.cu, few_rows.cu).
#pragma once

#include "kernels/matmul/cuda/mainloop.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// Sixteen rows at most: a decode step streams the weight at the memory's bandwidth with 42 KB in flight in each block.
using DecodeRows = ProductShape<16, 32, 16, 8, 8, 3>;
// The same for a weight of few rows, where tiles of 32 columns leave multiprocessors without work: on an H100 64 blocks
// reached 727 GB/s, 16 blocks 173, 256 blocks 2184. A warp to a block, which waits for nobody, with 15 KB of the weight
// in flight; its chain of products, not memory, is then the floor: 4 products that wait for each other take some 130
// cycles for 64 units of k.
using DecodeColumns = ProductShape<16, 8, 16, 8, 16, 3>;

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
