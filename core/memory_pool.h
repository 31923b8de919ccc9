// Memory that stays with its user. While a pool is open on its device, what is allocated there belongs to the pool:
// freed, it serves the pool's next allocations and nobody else's. A captured graph reads and writes the same addresses
// whenever it runs.
#pragma once

#include "core/memory.h"

namespace lathe {

class MemoryPool {
 public:
  explicit MemoryPool(Device device) : allocator_(allocator_for(device)), pool_(allocator_.make_pool()) {}
  // The pool's free memory returns to the device; what tensors still hold returns when they are freed.
  ~MemoryPool() { allocator_.drop_pool(pool_); }
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // Open while it lives, for all threads that allocate on the device.
  class Scope {
   public:
    explicit Scope(const MemoryPool& pool) : allocator_(pool.allocator_), before_(allocator_.open_pool(pool.pool_)) {}
    ~Scope() { allocator_.open_pool(before_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Allocator& allocator_;
    int64_t before_;
  };

 private:
  Allocator& allocator_;
  int64_t pool_;
};

}  // namespace lathe
