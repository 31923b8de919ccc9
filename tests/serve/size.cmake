# A program has fewer than so many bytes.
#   cmake -DPROGRAM=… -DMOST_BYTES=… -P size.cmake
file(SIZE ${PROGRAM} bytes)
if(NOT bytes LESS ${MOST_BYTES})
  message(FATAL_ERROR "${PROGRAM} has ${bytes} bytes, and should have fewer than ${MOST_BYTES}")
endif()
message(STATUS "${PROGRAM}: ${bytes} bytes")
