// What the host asks of the devices of one kind: one interface with two instances, for cards and for simt. Both are
// made of runtime.cu, copy_queue.cu and graph.cu, which nvcc compiles against the CUDA runtime and the host compiler
// against simt's. Above it stand runtime.h, upload.h, host_work.h and graph.h, which know the cpu as well.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/device.h"

namespace lathe::kernels {

// A stream of its own for copies from pinned memory, beside the device's work; see upload.h, which has two buffers.
class CopyQueue {
 public:
  virtual ~CopyQueue() = default;     // waits for the copies
  virtual void follow_compute() = 0;  // later copies wait for what is queued on the device now
  virtual void queue_copy(int buffer, void* to, const void* from, int64_t bytes) = 0;
  virtual void wait_for_buffer(int buffer) = 0;  // the host, until its last copy is done
  virtual void lead_compute() = 0;               // what is queued on the device later waits for the copies
};

// What was captured on the device's stream, and its executable; see graph.h.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void begin_capture() = 0;
  virtual void end_capture_and_launch() = 0;
  virtual void abandon_capture() = 0;
  virtual void launch() = 0;
};

// How a QueuedWorkListener (queued_work.h) is told of copies from and to pinned memory, which are no waits, and of work
// of the host's.
inline constexpr const char *queued_pinned_copy = "(pinned copy)", *queued_host_work = "(host work)";

// Devices by their index. Everything but why_unavailable() throws ResourceError for one that cannot be used, and Error
// with what the runtime says.
class DeviceRuntime {
 public:
  virtual std::string why_unavailable(int index) = 0;  // empty: it can be used
  virtual void use(int index) = 0;                     // this thread's device from now on

  // Ordered after the work queued so far. The first two return when the bytes have arrived.
  virtual void copy_in(int index, void* to, const void* from, int64_t bytes) = 0;
  virtual void copy_out(int index, void* to, const void* from, int64_t bytes) = 0;
  virtual void copy_within(int index, void* to, const void* from, int64_t bytes) = 0;
  virtual void synchronize(int index) = 0;
  // The same with pinned memory, and work of the host's between them: see host_work.h. The thread goes on.
  virtual void queue_copy_in(int index, void* to, const void* from, int64_t bytes) = 0;
  virtual void queue_copy_out(int index, void* to, const void* from, int64_t bytes) = 0;
  virtual void queue_host_work(int index, std::function<void()> work) = 0;

  virtual void* stream(int index) = 0;  // on which the device's work is queued, a cudaStream_t: for libraries
  virtual int64_t free_memory_bytes(int index) = 0;
  virtual int64_t last_cache_bytes(int index) = 0;
  virtual std::string device_name(int index) = 0;

  virtual void* take_pinned(int index, int64_t bytes) = 0;  // memory of the host that a device copies from by itself
  virtual void give_pinned(int index, void* pointer) = 0;
  virtual std::unique_ptr<CopyQueue> make_copy_queue(int index) = 0;
  virtual std::unique_ptr<Graph> make_graph(int index) = 0;

 protected:
  ~DeviceRuntime() = default;
};

// The runtime of the device's kind, which is not cpu. Throws ResourceError for cuda in a program that was built
// without.
DeviceRuntime& device_runtime(Device device);

// The instances (runtime.cu).
namespace cuda {
DeviceRuntime& runtime();
}
namespace simt {
DeviceRuntime& runtime();
}

}  // namespace lathe::kernels
