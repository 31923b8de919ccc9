// The block's shared memory, and what is checked about its use: who wrote a byte, who read it, and whether a barrier
// stands between; bytes that nobody wrote; bytes that a cp.async under way will write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/simt/collectives.h"

namespace lathe::simt {

void begin_shared_memory(size_t dynamic_bytes, uint32_t block_epoch);  // poisons it
void end_shared_memory();
bool in_shared_memory(const void* address, size_t bytes);

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
