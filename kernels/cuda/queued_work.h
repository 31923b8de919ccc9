// What a thread queues on devices and where it waits for them, while somebody asks: for lathe-bench train --profile,
// and for tests of how much a step queues.
#pragma once

#include <cstdint>

namespace lathe::kernels {

// Names of what is no kernel. A copy from or to the host is also a wait; giving memory back to the driver is one, too.
// (Arrays, so that each has one address by which a listener knows it: equal literals of two sources may have two.)
inline constexpr char queued_clear[] = "(clear)", queued_copy[] = "(copy)", waited[] = "(wait)";

class QueuedWorkListener {
 public:
  // While it lives it is told of what this thread queues, instead of the one before it.
  QueuedWorkListener();
  QueuedWorkListener(const QueuedWorkListener&) = delete;
  QueuedWorkListener& operator=(const QueuedWorkListener&) = delete;
  // A kernel by its LaunchConfig::name with the blocks of its grid, or one of the names above with 0.
  virtual void queued(const char* name, int64_t blocks) = 0;

 protected:
  ~QueuedWorkListener();

 private:
  QueuedWorkListener* before_;
};

// Called by what queues and waits; without a listener it costs a look at a pointer.
void tell_queued(const char* name, int64_t blocks = 0);

}  // namespace lathe::kernels
