#include "programs/train/processes.h"

#include <unistd.h>

#include <filesystem>
#include <memory>

#include "core/collectives/mpi_launch.h"
#include "programs/cli/messages.h"
#ifdef LATHE_MPI
#include "core/collectives/mpi.h"
#endif

namespace lathe::programs {
namespace {

std::unique_ptr<Communicator>& made_group() {
  static std::unique_ptr<Communicator> group;
  return group;
}

}  // namespace

#ifdef LATHE_MPI

void become_mpi_program(char** /*argv*/) {}

Communicator& processes() {
  std::unique_ptr<Communicator>& group = made_group();
  if (!group) group = started_by_mpi() ? mpi_communicator() : one_process_communicator();
  return *group;
}

int end_of_process(int code) {
  const std::unique_ptr<Communicator>& group = made_group();
  if (code != 0 && group && group->size() > 1) end_mpi_processes(code);
  return code;
}

#else

void become_mpi_program(char** argv) {
  if (!started_by_mpi()) return;
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path program = self.parent_path() / "lathe-train-mpi";
  ::execv(program.c_str(), argv);
  cli::print_warning(program.string() +
                     " is not there: this lathe-train was built without MPI, and each process that mpirun starts is a "
                     "run by itself");
}

Communicator& processes() {
  std::unique_ptr<Communicator>& group = made_group();
  if (!group) group = one_process_communicator();
  return *group;
}

int end_of_process(int code) { return code; }

#endif

}  // namespace lathe::programs
