# Finds nvcc (LATHE_NVCC), the Toolkit's root (LATHE_CUDA_ROOT) and the static CUDA runtime (LATHE_CUDART).
find_program(LATHE_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda/bin /opt/cuda/bin)
if(LATHE_NVCC)
  get_filename_component(LATHE_CUDA_ROOT ${LATHE_NVCC} REALPATH)
  get_filename_component(LATHE_CUDA_ROOT ${LATHE_CUDA_ROOT}/../.. ABSOLUTE)
  find_library(LATHE_CUDART cudart_static HINTS ${LATHE_CUDA_ROOT}/lib64 ${LATHE_CUDA_ROOT}/targets/x86_64-linux/lib REQUIRED)
endif()
