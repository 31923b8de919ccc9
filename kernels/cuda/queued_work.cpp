#include "kernels/cuda/queued_work.h"

#include <utility>

namespace lathe::kernels {

static thread_local QueuedWorkListener* listener = nullptr;

QueuedWorkListener::QueuedWorkListener() : before_(std::exchange(listener, this)) {}
QueuedWorkListener::~QueuedWorkListener() { listener = before_; }

void tell_queued(const char* name, int64_t blocks) {
  if (listener != nullptr) listener->queued(name, blocks);
}

}  // namespace lathe::kernels
