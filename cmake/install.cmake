# cmake --install: the programs, the rooms as static libraries with their headers, and a package for
# find_package(Lathe) (examples/library uses it).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(installed lathe_flags)
foreach(room core kernels autograd nn data text engine http train)
  set_target_properties(lathe_${room} PROPERTIES EXPORT_NAME ${room})
  list(APPEND installed lathe_${room})
endforeach()
set_target_properties(lathe_flags PROPERTIES EXPORT_NAME flags)
install(TARGETS ${installed} EXPORT Lathe ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/lathe)
install(EXPORT Lathe NAMESPACE Lathe:: FILE LatheTargets.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Lathe)
foreach(room core kernels autograd nn data text serve train)
  install(DIRECTORY ${room} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lathe FILES_MATCHING PATTERN "*.h"
    PATTERN "simt" EXCLUDE PATTERN "page" EXCLUDE)
endforeach()
configure_package_config_file(cmake/LatheConfig.cmake.in ${CMAKE_BINARY_DIR}/LatheConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Lathe)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/LatheConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/LatheConfig.cmake ${CMAKE_BINARY_DIR}/LatheConfigVersion.cmake
  cmake/dependencies.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Lathe)

install(TARGETS lathe-model lathe-data lathe-train lathe-serve RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
if(TARGET lathe-train-mpi)
  install(TARGETS lathe-train-mpi RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
endif()
if(TARGET lathe-bench)
  install(TARGETS lathe-bench RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
endif()
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs)
install(FILES packaging/lathe-serve.service packaging/lathe-serve.yaml DESTINATION ${CMAKE_INSTALL_DATADIR}/lathe COMPONENT programs)
