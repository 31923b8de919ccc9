#include "kernels/simt/tensor_copy.h"

#include <cstring>
#include <deque>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/simt/block.h"
#include "kernels/simt/cluster.h"
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
  BoxPlace from;
  uint64_t* barrier;
  int rank, thread;  // who issued it
  Where where;
};

std::deque<Copy> under_way;  // oldest first
bool lands_late = true;
std::set<std::tuple<int, int, const TensorMap*>> acquired;  // by which thread of which block of the cluster

size_t bytes_of(const TensorMap& map) { return static_cast<size_t>(map.box_rows) * line_bytes; }

void land(const Copy& copy) {
  const TensorMap& map = copy.map;
  std::vector<unsigned char> box(bytes_of(map), 0);
  const int64_t matrix = map.matrices > 0 ? copy.from.matrix : 0;
  const bool is_there = matrix >= 0 && matrix < (map.matrices > 0 ? map.matrices : 1);
  for (int i = 0; i < map.box_rows; ++i) {
    const int64_t row = int64_t{copy.from.row} + i;
    if (!is_there || row < 0 || row >= map.rows) continue;
    for (int j = 0; j < map.box_columns; ++j) {
      const int64_t column = int64_t{copy.from.column} + j;
      if (column < 0 || column >= map.columns) continue;
      // The swizzle is of addresses: bits 4 to 6 by bits 7 to 9.
      size_t place = static_cast<size_t>(i) * line_bytes + 2 * static_cast<size_t>(j);
      const size_t base = shared_window_address(copy.shared);
      place = ((place + base) ^ (((place + base) >> 7 & 7) << 4)) - base;
      std::memcpy(&box[place],
                  static_cast<const unsigned char*>(map.data) + (matrix * map.rows + row) * map.row_bytes + 2 * column,
                  2);
    }
  }
  run_as_block(copy.rank);
  if (const int to = rank_of_shared(copy.shared); to != copy.rank)
    if (const char* fault = why_no_peer(to))
      return report_of_thread(copy.thread, std::string("has a bulk copy under way that ") + fault, copy.where);
  end_async_write(copy.shared, box.data(), box.size(), copy.thread);
  mbarrier_complete_tx(copy.barrier, static_cast<unsigned>(box.size()));
}

// What is wrong with a copy of the running thread, or nullptr.
const char* fault_of(const void* shared, const TensorMap& map, BoxPlace from, bool at_rest) {
  if (device_of(&map, sizeof map) >= 0 && !acquired.contains({running.rank, running.thread, &map}))
    return "copies by a tensor map in global memory: a kernel's argument is where it lies unfenced";
  if ((map.matrices > 0) != (from.matrix >= 0))
    return "copies from one of several matrices by a map of one, or from none";
  if (running.awaits_grid && !at_rest)
    return "copies global memory before it has waited for the kernel before a dependent one";
  if (map.data == nullptr) return "copies by a tensor map that was never made";
  const size_t address = shared_window_address(shared);
  if (!in_shared_memory(shared, bytes_of(map)) || address == SIZE_MAX)
    return "copies a box to an address outside the block's dynamic shared memory";
  if (address % 1024 != 0) return "copies a box in 128-byte swizzle to an address that is not a multiple of 1024";
  if (from.column % 8 != 0) return "copies a box from an address that is not a multiple of 16 bytes";
  return nullptr;
}

// To the shared memory of a block of the cluster.
void issue(Copy copy) {
  if (!mbarrier_takes_copies(copy.barrier, copy.where)) return;
  if (wgmma_reads(copy.shared, bytes_of(copy.map)))
    return report("copies to shared memory that a wgmma reads which nobody has waited for", copy.where);
  begin_async_write(copy.shared, bytes_of(copy.map), copy.where);
  under_way.push_back(copy);
  if (!lands_late) land_tensor_copy();
}

}  // namespace

void tensor_copy(void* shared, const TensorMap& map, BoxPlace from, uint64_t* barrier, Where where, bool at_rest) {
  if (const char* fault = fault_of(shared, map, from, at_rest)) return report(fault, where);
  issue({static_cast<unsigned char*>(shared), map, from, barrier, running.rank, running.thread, where});
}

void acquire_tensor_map(const TensorMap& map) { acquired.insert({running.rank, running.thread, &map}); }

void tensor_copy_multicast(void* shared, const TensorMap& map, int row, int column, uint64_t* barrier, unsigned mask,
                           Where where) {
  if (const char* fault = fault_of(shared, map, {row, column}, false)) return report(fault, where);
  if (mask == 0 || mask >> cluster_blocks() != 0) return report("multicasts to blocks that its cluster has not", where);
  for (int rank = 0; rank < cluster_blocks(); ++rank) {
    if (!(mask >> rank & 1u)) continue;
    auto* const to = static_cast<unsigned char*>(shared_memory_of(rank, shared, where));
    auto* const barrier_there = static_cast<uint64_t*>(shared_memory_of(rank, barrier, where));
    issue({to, map, {row, column}, barrier_there, running.rank, running.thread, where});
  }
}

void begin_tensor_copies(bool late) {
  under_way.clear();
  acquired.clear();
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
  for (const Copy& copy : under_way) {
    run_as_block(copy.rank);
    report_of_thread(copy.thread, "has a bulk copy under way when the block ends", copy.where);
  }
  under_way.clear();
}

}  // namespace lathe::simt
