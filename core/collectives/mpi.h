// The processes that mpirun started, as a Communicator of CPU tensors. In a library of its own, lathe_mpi: linking MPI
// costs every start of a program 4 ms, needed or not.
#pragma once

#include <memory>

#include "core/collectives/communicator.h"
#include "core/collectives/mpi_launch.h"

namespace lathe {

// All processes. The first call initialises MPI, which ends with the process; call it from the main thread, and use the
// communicator from one thread at a time. Sums run in ascending ranks: MPI's own reductions promise no order, so the
// parts are exchanged and added here.
std::unique_ptr<Communicator> mpi_communicator();

// Ends all processes with this code, wherever they are: what one that cannot go on does, so that none waits for it.
// After mpi_communicator() alone.
[[noreturn]] void end_mpi_processes(int code);

}  // namespace lathe
