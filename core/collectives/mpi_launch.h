// Whether a process is one of several, known without MPI.
#pragma once

namespace lathe {

// Whether this process was started by mpirun (or a scheduler that speaks its protocol).
bool started_by_mpi();

}  // namespace lathe
