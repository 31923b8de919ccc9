// Cards as a Communicator of CUDA tensors, through NCCL. In a library of its own, lathe_nccl.
#pragma once

#include <array>
#include <memory>

#include "core/collectives/communicator.h"

namespace lathe {

// Names a group before it exists: made by one rank, given to all.
using NcclGroupId = std::array<char, 128>;
NcclGroupId make_nccl_group_id();

// Rank `rank` of `size`, computing on `device` in the order of `stream` (a cudaStream_t): operations are queued there
// and the host does not wait, except in barrier(). Every rank must make its own at the same time. NCCL adds in the
// order of its ring or tree, the same in every run with the same cards and settings (NCCL_ALGO) but not by rank, and
// rounds bf16 at every addition: give it f32 to sum.
std::unique_ptr<Communicator> nccl_communicator(const NcclGroupId& id, int rank, int size, Device device, void* stream);

// The same, with the ranks of another communicator (MPI's), which carries the id.
std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Device device, void* stream);

}  // namespace lathe
