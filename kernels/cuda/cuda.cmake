# The CUDA bodies through nvcc, where a CUDA Toolkit is found (LATHE_CUDA=AUTO), must be (ON) or is left alone (OFF).
# The runtime is linked statically and looks for the driver when it is first used: programs start on machines without
# one.
if(LATHE_CUDA STREQUAL "OFF")
  return()
endif()
include(cuda_toolkit)
if(NOT LATHE_NVCC)
  if(LATHE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LATHE_CUDA=ON, but there is no nvcc in PATH, CUDA_PATH, CUDA_HOME or /usr/local/cuda/bin. "
                        "Install the CUDA Toolkit (12 or newer), or configure with LATHE_CUDA=OFF.")
  endif()
  message(STATUS "CUDA: no Toolkit found; kernels are built for the CPU and the simt device only")
  return()
endif()

message(STATUS "CUDA: ${LATHE_NVCC}")

# nvcc is called directly: CMake's CUDA language would make every program that links this a CUDA program, and CMake 3.25
# does not know that nvcc has C++20.
# Machine code for sm_80 (which sm_86 and sm_89 run as well) and sm_90 and, for every newer card, PTX. One pass of the
# front end serves all, so that sm_90 costs a build little.
set(LATHE_CUDA_ARCHITECTURES "-gencode=arch=compute_80,code=[sm_80,sm_90,compute_80]" CACHE STRING "nvcc's -gencode options")
option(LATHE_CUDA_LINES "Line numbers of kernels, for profilers and compute-sanitizer: twice the bytes" OFF)
set(nvcc_flags -std=c++20 -O3 -I${CMAKE_SOURCE_DIR} -DLATHE_DEVICE_ANCHOR=lathe_cuda_anchor
  -Xcompiler=-fPIE,-fno-math-errno
  -fmad=false  # as on the host, multiplications and additions are fused where the source says so and nowhere else
  -Xptxas=-warn-spills,-warn-lmem-usage,-Werror)  # no kernel spills or keeps an array in local memory
if(LATHE_CUDA_LINES)
  list(APPEND nvcc_flags -lineinfo)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  list(APPEND nvcc_flags -DNDEBUG)
endif()
# Machine code and PTX pack to a quarter. (nvcc 12's own such mode wants a newer driver than its programs
# do.)
execute_process(COMMAND ${LATHE_NVCC} --version OUTPUT_VARIABLE nvcc_version)
if(nvcc_version MATCHES "release ([0-9]+)" AND CMAKE_MATCH_1 GREATER_EQUAL 13)
  list(APPEND nvcc_flags --compress-mode=size)
endif()

set_property(GLOBAL PROPERTY lathe_nvcc_flags "${nvcc_flags}")  # for tests that hold kernels

foreach(source IN LISTS cuda_sources)
  file(RELATIVE_PATH name ${CMAKE_CURRENT_SOURCE_DIR} ${source})
  string(REPLACE "/" "_" object ${name})
  set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${object}.o)
  set(architectures ${LATHE_CUDA_ARCHITECTURES})
  if(name MATCHES "_sm_90a\\.cu$")  # wgmma and its like, which are sm_90a's alone
    set(architectures -gencode=arch=compute_90a,code=sm_90a)
  endif()
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${LATHE_CCACHE} ${LATHE_NVCC} ${nvcc_flags} ${architectures} -MD -MT ${object} -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source}
    DEPFILE ${object}.d
    COMMENT "nvcc kernels/${name}"
    VERBATIM)
  target_sources(lathe_kernels PRIVATE ${object})
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
endforeach()
file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda)

target_link_libraries(lathe_kernels PUBLIC ${LATHE_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
target_compile_definitions(lathe_kernels PRIVATE LATHE_WITH_CUDA)
target_include_directories(lathe_kernels SYSTEM PRIVATE ${LATHE_CUDA_ROOT}/include)  # NVTX's headers
target_link_options(lathe_kernels INTERFACE -Wl,-u,lathe_cuda_anchor)
