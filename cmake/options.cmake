set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
endif()
# -O2 keeps the cold build short; the CPU bodies of kernels ask for more themselves (kernels/CMakeLists.txt).
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

# With the linker's --gc-sections a program takes the functions that it calls and no others: lathe-serve no gradients.
set(lathe_sections $<$<CONFIG:Release>:-ffunction-sections>)
# What several sources are compiled to at once is many objects still, tables of virtual functions among them.
set(lathe_batch_sections $<$<CONFIG:Release>:-fdata-sections>)
# For rooms that wait for a network or a person: half the size of -O2.
set(lathe_small $<$<CONFIG:Release>:-Os>)
# For what a test itself does, next to nothing beside what it calls: the optimiser was half of its compilation.
set(lathe_quick $<$<CONFIG:Release>:-O0>)
# And the quickest linker that there is (of binutils, gold) for 250 programs that nobody keeps: a test takes 1.1 s of
# CPU time with the default one, 0.6 with gold, 0.4 with lld.
find_program(LATHE_LLD ld.lld)
find_program(LATHE_GOLD ld.gold)
# Gold also makes one function of those whose machine code is the same: 0.4 MB of lathe-serve.
set(lathe_small_link "")
if(LATHE_GOLD AND NOT LATHE_PORTABLE)
  set(lathe_small_link $<$<CONFIG:Release>:-fuse-ld=gold;-Wl,--icf=safe>)
endif()
set(lathe_quick_link $<IF:$<BOOL:${LATHE_LLD}>,-fuse-ld=lld,$<$<BOOL:${LATHE_GOLD}>:-fuse-ld=gold>>)

option(LATHE_TESTS "Build the tests" ON)
option(LATHE_BENCH "Build lathe-bench (needs Google Benchmark)" ON)
option(LATHE_BATCHES "Compile a room's sources ten at a time: half of their time, more for one changed file" ON)
option(LATHE_TLS "lathe-serve speaks TLS (needs OpenSSL)" ON)
option(LATHE_PORTABLE "Programs that run with any C library from 2.31 on (scripts/package sets it)" OFF)
option(LATHE_FUZZ "Build the fuzz targets of tests/fuzz, and nothing else (needs clang; scripts/fuzz runs them)" OFF)
set(LATHE_CUDA AUTO CACHE STRING "CUDA bodies through nvcc: AUTO (where a CUDA Toolkit is found), ON or OFF")
set(LATHE_SANITIZE "" CACHE STRING "address, undefined, thread, or a comma-separated list; empty for none")

add_library(lathe_flags INTERFACE)
target_include_directories(lathe_flags INTERFACE
  $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:include/lathe>)
target_compile_features(lathe_flags INTERFACE cxx_std_20)
# Contraction is off so that a sum rounds the same wherever the compiler puts it; kernels write their FMAs out.
target_compile_options(lathe_flags INTERFACE
  $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-sign-compare;-Wno-missing-field-initializers;-ffp-contract=off;-fno-math-errno>>)
if(LATHE_SANITIZE)
  target_compile_options(lathe_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${LATHE_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all;-g1>)
  target_link_options(lathe_flags INTERFACE -fsanitize=${LATHE_SANITIZE})
endif()

if(LATHE_FUZZ)
  target_compile_options(lathe_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_program(LATHE_CCACHE ccache)
if(LATHE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${LATHE_CCACHE})
  # The cache hands a clone what another has compiled, and with it the name of the other's build folder.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fdebug-prefix-map=${CMAKE_BINARY_DIR}=.>)
endif()
