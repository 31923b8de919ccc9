// Bulk tensor copies (TMA) from global to shared memory. The instructions stand in kernels/cuda/ptx/tensor_copy.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/simt/collectives.h"

namespace lathe::simt {

// A matrix of 16-bit elements and the box that a copy takes from it, in 128-byte swizzle: what a CUtensorMap of rank 2
// says, or of rank 3 where `matrices` is not 0. kernels/cuda/tensor_map.h checks it.
struct TensorMap {
  const void* data = nullptr;
  int64_t rows = 0, columns = 0, row_bytes = 0;
  int box_rows = 0, box_columns = 0;
  int64_t matrices = 0;  // one after another
};

// Where a box begins.
struct BoxPlace {
  int row, column;
  int matrix = -1;  // of a map of several
};

// The box from a place on to `shared`, zeros where the matrix ends; its bytes are completed on the barrier. The copy
// lands as late as it may, when nobody in the cluster can go on, or at once: begin_tensor_copies() says which. Memory
// at rest a dependent launch may read before it has waited for the kernel before it.
void tensor_copy(void* shared, const TensorMap& map, BoxPlace from, uint64_t* barrier, Where where,
                 bool at_rest = false);
// The running thread may copy by a map in global memory: fence.proxy.tensormap.
void acquire_tensor_map(const TensorMap& map);
// The same to that place in each block of the cluster whose rank is a bit of the mask, and completed on the barrier at
// that place in each.
void tensor_copy_multicast(void* shared, const TensorMap& map, int row, int column, uint64_t* barrier, unsigned mask,
                           Where where);

void begin_tensor_copies(bool late);  // of a cluster
bool land_tensor_copy();              // the oldest; false: none is under way
void end_tensor_copies();             // all threads have exited: reports a copy that is still under way

}  // namespace lathe::simt
