// Clusters of blocks. The instructions stand in kernels/cuda/ptx/cluster.h.
#pragma once

#include "kernels/simt/collectives.h"

namespace lathe::simt {

int cluster_rank();
int cluster_blocks();

// barrier.cluster.
void cluster_arrive(Where where);
void cluster_wait(Where where);

// The place of `own` in that block's shared memory; `own`, with a report, where the block is not one of the cluster, or
// not there.
void* shared_memory_of(int rank, void* own, Where where);
// nullptr, or what is wrong with touching that block's shared memory now.
const char* why_no_peer(int rank);

}  // namespace lathe::simt
