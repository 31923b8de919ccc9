# The simt device: the emulator, and every .cu file compiled by the host compiler. Each gets a wrapper of one #include,
# because CMake knows a source file by one language only.
file(GLOB simt_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cu)

set(simt_kernels "")
set(simt_host "")
foreach(source IN LISTS cuda_sources)
  file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${source})
  string(REPLACE "/" "_" wrapper ${name})
  set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/simt/${wrapper}.cpp)
  file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${name}\"\n" @ONLY)
  if(name MATCHES "^kernels/cuda/")
    list(APPEND simt_host ${wrapper})
  else()
    list(APPEND simt_kernels ${wrapper})
  endif()
endforeach()

target_sources(lathe_kernels PRIVATE ${simt_sources} ${simt_host})
# A tenth of the emulator's time, in vectors half of that.
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/tensor_sum.cpp PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-O3>)
# What gdb asks for: docs/simt.md.
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/block.cpp PROPERTIES COMPILE_OPTIONS -g)
target_link_libraries(lathe_kernels PRIVATE Boost::context ${CMAKE_DL_LIBS})
target_compile_definitions(lathe_kernels PRIVATE LATHE_DEVICE_ANCHOR=lathe_simt_anchor)
# The device registers itself when a program starts; this keeps the linker from leaving it out.
target_link_options(lathe_kernels INTERFACE $<$<NOT:$<BOOL:$<TARGET_PROPERTY:LATHE_WITHOUT_SIMT>>>:-Wl,-u,lathe_simt_anchor>)

# lathe_leaves_out_simt(PROGRAM): 3 MB less. What knows the device is compiled once more without it; a program takes
# these objects before the library's.
set(knows_simt "")
foreach(source IN LISTS kernel_sources)
  file(STRINGS ${source} lines REGEX "kernels/dispatch.h|/run_rows.h|simt::" LIMIT_COUNT 1)
  if(lines)
    list(APPEND knows_simt ${source})
  endif()
endforeach()
add_library(lathe_kernels_without_simt OBJECT ${knows_simt})
target_link_libraries(lathe_kernels_without_simt PRIVATE lathe_core)
target_compile_definitions(lathe_kernels_without_simt PRIVATE LATHE_WITHOUT_SIMT $<TARGET_PROPERTY:lathe_kernels,COMPILE_DEFINITIONS>)
target_include_directories(lathe_kernels_without_simt SYSTEM PRIVATE $<TARGET_PROPERTY:lathe_kernels,INCLUDE_DIRECTORIES>)
target_compile_options(lathe_kernels_without_simt PRIVATE ${lathe_sections})
# Each source stands there already.
set_target_properties(lathe_kernels_without_simt PROPERTIES EXPORT_COMPILE_COMMANDS OFF)
function(lathe_leaves_out_simt program)
  target_link_libraries(${program} PRIVATE lathe_kernels_without_simt)
  set_target_properties(${program} PROPERTIES LATHE_WITHOUT_SIMT TRUE)
endfunction()

add_library(lathe_simt_kernels OBJECT ${simt_kernels})
target_link_libraries(lathe_simt_kernels PRIVATE lathe_flags)
# Debug information names the lines of faults.
set(simt_flags $<IF:$<CONFIG:Debug>,-O0,-O1> $<IF:$<CONFIG:Debug>,-g,-g1> -Wno-unused-function -Wno-unknown-pragmas)
if(NOT LATHE_SANITIZE)
  # Not ThreadSanitizer: only its calls before every access, which memory_checks.cpp answers.
  list(APPEND simt_flags -fsanitize=thread)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND simt_flags --param=tsan-instrument-func-entry-exit=0)
  else()
    list(APPEND simt_flags "SHELL:-mllvm -tsan-instrument-func-entry-exit=0")
  endif()
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/memory_checks.cpp PROPERTIES COMPILE_DEFINITIONS LATHE_SIMT_INSTRUMENTED)
endif()
set_property(GLOBAL PROPERTY lathe_simt_flags "${simt_flags}")  # for tests that hold kernels
target_compile_options(lathe_simt_kernels PRIVATE ${simt_flags} ${lathe_sections})
target_sources(lathe_kernels PRIVATE $<TARGET_OBJECTS:lathe_simt_kernels>)
