// mbarrier: a barrier in shared memory that opens when its arrivals have come and the bytes that it expects. The
// instructions stand in kernels/cuda/ptx/mbarrier.h.
#pragma once

#include <cstdint>

#include "kernels/simt/collectives.h"

namespace lathe::simt {

void mbarrier_init(uint64_t* barrier, unsigned count, Where where);
void fence_mbarrier_init();  // of the running thread's barriers, for bulk copies
void mbarrier_arrive(uint64_t* barrier, Where where);
void mbarrier_arrive_at(uint64_t* own, int rank, Where where);  // at the same place in that block of the cluster
void mbarrier_arrive_expect_tx(uint64_t* barrier, unsigned bytes, Where where);
void mbarrier_wait(uint64_t* barrier, unsigned parity, Where where);

// For bulk copies. The first says whether a copy may complete on it, and reports when not.
bool mbarrier_takes_copies(uint64_t* barrier, Where where);
void mbarrier_complete_tx(uint64_t* barrier, unsigned bytes);

void begin_mbarriers();  // of a cluster: none is there

}  // namespace lathe::simt
