// The processes that mpirun started, this one among them. lathe-train does without MPI, which would cost every start 4
// ms: started by mpirun, it becomes the program lathe-train-mpi that lies beside it.
#pragma once

#include "core/collectives/communicator.h"

namespace lathe::programs {

// First thing in main(). A warning where mpirun started this program and it was built without MPI.
void become_mpi_program(char** argv);

// A group of one where mpirun did not start this program.
Communicator& processes();

// Last thing in main(): what this process returns. Where it is not 0, all processes end.
int end_of_process(int code);

}  // namespace lathe::programs
