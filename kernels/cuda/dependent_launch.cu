#include "kernels/cuda/dependent_launch.h"

#include <atomic>

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {

#if LATHE_SIMT

bool launches_dependents() { return true; }

#else

namespace {

constexpr int max_devices = 8;
constexpr int first_driver = 12030;  // that captures such launches

__global__ void of_this_program_kernel() {}

// Code that was compiled for an older card has no waits in it, on whatever card it runs.
bool ask() {
  int driver = 0;
  cudaFuncAttributes compiled{};
  if (cudaDriverGetVersion(&driver) == cudaSuccess &&
      cudaFuncGetAttributes(&compiled, of_this_program_kernel) == cudaSuccess)
    return driver >= first_driver && compiled.ptxVersion >= 90 && compiled.binaryVersion >= 90;
  cudaGetLastError();
  return false;
}

}  // namespace

bool launches_dependents() {
  static std::atomic<int> known[max_devices] = {};  // 1: no, 2: yes
  int device = 0;
  check(cudaGetDevice(&device), "asking for the device");
  int answer = known[device];
  if (answer == 0) known[device] = answer = ask() ? 2 : 1;
  return answer == 2;
}

#endif

}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
