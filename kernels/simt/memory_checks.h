// The shared memory of a cluster's blocks, and what is checked about its use: who wrote a byte, who read it, and
// whether a barrier stands between; bytes that nobody wrote; bytes that a cp.async under way will write; a block's that
// is not there yet, or no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/simt/collectives.h"

namespace lathe::simt {

void begin_shared_memory(size_t dynamic_bytes, int blocks);  // poisons it
void end_shared_memory();
bool in_shared_memory(const void* address, size_t bytes);  // of the running block
int rank_of_shared(const void* address);                   // the block whose shared memory holds it

// What the asynchronous proxy (bulk copies, wgmma's descriptors) does with shared memory. A tile that it finds lies in
// dynamic shared memory, and its address is counted from there, as on a card whose kernel has no static one.
size_t shared_window_address(const void* address);                // SIZE_MAX outside; of any block of the cluster
void* shared_window_pointer(size_t address);                      // nullptr outside; the running block's
void begin_async_write(void* shared, size_t bytes, Where where);  // by the running thread; poisons
void end_async_write(void* shared, const void* from, size_t bytes, int thread);  // of the running block
bool async_write_under_way(const void* shared, size_t bytes);  // a cp.async or a bulk copy has not landed there
void note_async_read(const void* address, size_t bytes, int thread, Where where);
// What the running thread wrote before is there for the asynchronous proxy: fence.proxy.async.
void fence_proxy_async();

// The copies of one thread. A group is copied when the thread waits for it.
class AsyncCopies {
 public:
  void issue(void* shared, const void* global, int bytes, int valid_bytes, Where where);
  void commit();
  void wait(int groups_left);
  const Where* unfinished() const;  // where the oldest copy that was never waited for was issued

 private:
  struct Copy {
    void* shared;
    const void* global;
    int bytes, valid_bytes;
    Where where;
  };
  std::vector<Copy> copies_;        // oldest first
  std::vector<size_t> group_ends_;  // counts of copies_
};

// "kernels/cuda/row.h:70, inlined at kernels/rms_norm/cuda.cu:57", as far as the program's debug information says.
std::string source_line(const void* code_address);

}  // namespace lathe::simt
