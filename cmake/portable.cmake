# LATHE_PORTABLE: programs that need nothing but a C library of 2.31 or newer. scripts/package gives LATHE_OLD_LIBC, the
# files of that C library's packages, and LATHE_STATIC_LIBRARIES, a folder with the libraries that Debian has as shared
# ones only.
if(NOT LATHE_OLD_LIBC OR NOT LATHE_STATIC_LIBRARIES)
  message(FATAL_ERROR "LATHE_PORTABLE needs LATHE_OLD_LIBC and LATHE_STATIC_LIBRARIES: run scripts/package")
endif()

set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
set(Boost_USE_STATIC_LIBS ON)
set(OPENSSL_USE_STATIC_LIBS ON)

add_compile_options(-ffunction-sections -fdata-sections -fno-pie)
set(old_libraries ${LATHE_OLD_LIBC}/usr/lib/x86_64-linux-gnu)
add_link_options(-Wl,--gc-sections -static-libstdc++ -static-libgcc -no-pie
  -B${old_libraries} -L${old_libraries} -Wl,--sysroot=${LATHE_OLD_LIBC})
set(CMAKE_CXX_STANDARD_LIBRARIES "-lpthread -ldl")  # libraries of their own then

# A library whose CMake package knows the shared one only.
function(lathe_link_statically target file)
  get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
  foreach(configuration IN LISTS configurations)
    set_target_properties(${target} PROPERTIES IMPORTED_LOCATION_${configuration} ${file})
  endforeach()
endfunction()
