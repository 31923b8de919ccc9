// What runtime.cu defines once for cards and once for simt; runtime.h joins them.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"

namespace lathe::kernels {
struct CopyQueue;  // upload.h: a stream of its own for copies from the host, and an event for each staging buffer
struct Graph;      // graph.h: what was captured, and its executable
}  // namespace lathe::kernels

#define LATHE_DEVICE_LAYER(space)                                                                     \
  namespace lathe::kernels::space {                                                                   \
  std::string why_unavailable(int index);                                                             \
  void use(int index); /* this thread's device from now on */                                         \
  void copy_in(int index, void* to, const void* from, int64_t bytes);                                 \
  void copy_out(int index, void* to, const void* from, int64_t bytes);                                \
  void copy_within(int index, void* to, const void* from, int64_t bytes);                             \
  void synchronize(int index);                                                                        \
  int64_t free_memory_bytes(int index);                                                               \
  int64_t last_cache_bytes(int index);                                                                \
  std::string device_name(int index);                                                                 \
                                                                                                      \
  void* take_pinned(int index, int64_t bytes);                                                        \
  void give_pinned(int index, void* pointer);                                                         \
                                                                                                      \
  CopyQueue* make_copy_queue(int index);                                                              \
  void destroy_copy_queue(CopyQueue* queue);                                                          \
  void follow_compute(CopyQueue* queue); /* later copies wait for what is queued on the device now */ \
  void queue_copy(CopyQueue* queue, int buffer, void* to, const void* from, int64_t bytes);           \
  void wait_for_buffer(CopyQueue* queue, int buffer); /* the host, until its last copy is done */     \
  void lead_compute(CopyQueue* queue); /* what is queued on the device later waits for the copies */  \
                                                                                                      \
  Graph* make_graph(int index);                                                                       \
  void destroy_graph(Graph* graph);                                                                   \
  void begin_capture(Graph* graph);                                                                   \
  void end_capture_and_launch(Graph* graph);                                                          \
  void launch_graph(Graph* graph);                                                                    \
  void abandon_capture(Graph* graph);                                                                 \
  }
LATHE_DEVICE_LAYER(cuda)
LATHE_DEVICE_LAYER(simt)
