#include "kernels/simt/tensor_copy.h"

#include <cstring>
#include <deque>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/device_memory.h"
#include "kernels/simt/mbarrier.h"
#include "kernels/simt/memory_checks.h"
#include "kernels/simt/wgmma.h"

namespace lathe::simt {
namespace {

constexpr size_t line_bytes = 128;  // of the swizzle: a row of the box

struct Copy {
  unsigned char* shared;
  TensorMap map;
  int row, column;
  uint64_t* barrier;
  int thread;
  Where where;
};

std::deque<Copy> under_way;  // oldest first
bool lands_late = true;

size_t bytes_of(const TensorMap& map) { return static_cast<size_t>(map.box_rows) * line_bytes; }

void land(const Copy& copy) {
  const TensorMap& map = copy.map;
  std::vector<unsigned char> box(bytes_of(map), 0);
  for (int i = 0; i < map.box_rows; ++i) {
    const int64_t row = int64_t{copy.row} + i;
    if (row < 0 || row >= map.rows) continue;
    for (int j = 0; j < map.box_columns; ++j) {
      const int64_t column = int64_t{copy.column} + j;
      if (column < 0 || column >= map.columns) continue;
      // The swizzle is of addresses: bits 4 to 6 by bits 7 to 9.
      size_t place = static_cast<size_t>(i) * line_bytes + 2 * static_cast<size_t>(j);
      const size_t base = shared_window_address(copy.shared);
      place = ((place + base) ^ (((place + base) >> 7 & 7) << 4)) - base;
      std::memcpy(&box[place], static_cast<const unsigned char*>(map.data) + row * map.row_bytes + 2 * column, 2);
    }
  }
  end_async_write(copy.shared, box.data(), box.size(), copy.thread);
  mbarrier_complete_tx(copy.barrier, static_cast<unsigned>(box.size()));
}

}  // namespace

void tensor_copy(void* shared, const TensorMap& map, int row, int column, uint64_t* barrier, Where where) {
  if (device_of(&map, sizeof map) >= 0)
    return report("copies by a tensor map in global memory: a kernel's argument is where it lies unfenced", where);
  if (running.awaits_grid)
    return report("copies global memory before it has waited for the kernel before a dependent one", where);
  if (map.data == nullptr) return report("copies by a tensor map that was never made", where);
  const size_t address = shared_window_address(shared);
  if (!in_shared_memory(shared, bytes_of(map)) || address == SIZE_MAX)
    return report("copies a box to an address outside the block's dynamic shared memory", where);
  if (address % 1024 != 0)
    return report("copies a box in 128-byte swizzle to an address that is not a multiple of 1024", where);
  if (column % 8 != 0) return report("copies a box from an address that is not a multiple of 16 bytes", where);
  if (!mbarrier_takes_copies(barrier, where)) return;
  if (wgmma_reads(address, bytes_of(map)))
    return report("copies to shared memory that a wgmma reads which nobody has waited for", where);
  begin_async_write(shared, bytes_of(map), where);
  under_way.push_back({static_cast<unsigned char*>(shared), map, row, column, barrier, running.thread, where});
  if (!lands_late) land_tensor_copy();
}

void begin_tensor_copies(bool late) {
  under_way.clear();
  lands_late = late;
}

bool land_tensor_copy() {
  if (under_way.empty()) return false;
  const Copy copy = under_way.front();
  under_way.pop_front();
  land(copy);
  return true;
}

void end_tensor_copies() {
  for (const Copy& copy : under_way)
    report_of_thread(copy.thread, "has a bulk copy under way when the block ends", copy.where);
  under_way.clear();
}

}  // namespace lathe::simt
