#include "core/collectives/mpi_launch.h"

#include <cstdlib>
#include <initializer_list>

namespace lathe {

bool started_by_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(name) != nullptr) return true;
  return false;
}

}  // namespace lathe
