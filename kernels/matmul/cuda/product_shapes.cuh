// The tiles of products of many rows on the tensor cores by mma.sync: m, n, a warp's m and n, stages, blocks on a
// multiprocessor.
#pragma once

#include "kernels/matmul/cuda/mainloop.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

// 128 accumulators in a thread (219 to 238 registers). A warp's 64 × 64 takes shared memory half of the time that the
// products take the tensor cores of an A100, 64 × 32 would take it three quarters; on an H100, all of it and more.
using LargeTiles = ProductShape<128, 256, 64, 64, 3, 1, Cards::large_blocks>;
using MediumTiles = ProductShape<64, 128, 32, 64, 3, 2>;

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
