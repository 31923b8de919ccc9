#include "kernels/simt/mbarrier.h"

#include <map>
#include <string>

#include "kernels/simt/block.h"
#include "kernels/simt/cluster.h"
#include "kernels/simt/memory_checks.h"

namespace lathe::simt {
namespace {

constexpr int64_t most_bytes = (1 << 20) - 1;  // that a phase can count

struct Barrier {
  unsigned count = 0;      // arrivals of a phase
  unsigned pending = 0;    // that are still to come
  int64_t bytes_left = 0;  // below zero: copies that came before they were expected, or that nobody expects
  uint64_t phase = 0;
  int rank = 0;          // of the block whose it is
  int made_by = 0;       // thread
  uint32_t made_in = 0;  // block epoch
  bool fenced = false;
};

std::map<const uint64_t*, Barrier> barriers;

// Nullptr, with a report, where the running thread may not use it.
Barrier* find(uint64_t* address, Where where) {
  const auto found = barriers.find(address);
  if (found == barriers.end()) {
    report("uses an mbarrier that nobody has initialised", where);
    return nullptr;
  }
  const Barrier& barrier = found->second;
  if (barrier.rank != running.rank && barrier.made_in >= running.cluster_epoch) {
    report("uses an mbarrier that another block initialised, with no barrier.cluster between", where);
    return nullptr;
  }
  if (barrier.rank == running.rank && barrier.made_by != running.thread && barrier.made_in == running.block_epoch) {
    report("uses an mbarrier that another thread initialised, with no barrier between", where);
    return nullptr;
  }
  return &found->second;
}

// What comes after an opened barrier is ordered after what came before: the checks of races see one more barrier of the
// cluster, which may hide a race between threads that this one does not order, and invents none.
void open_if_complete(Barrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes_left != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.count;
  begin_cluster_epoch();
}

void arrive(Barrier& barrier, Where where) {
  if (barrier.pending == 0) return report("arrives at an mbarrier more often than its count says", where);
  --barrier.pending;
  open_if_complete(barrier);
}

struct Wait {
  const uint64_t* address;
  unsigned parity;
};

bool opened(const void* what) {
  const auto* wait = static_cast<const Wait*>(what);
  return (barriers[wait->address].phase & 1) != wait->parity;
}

std::string describe(const void* what) {
  const auto* wait = static_cast<const Wait*>(what);
  const Barrier& barrier = barriers[wait->address];
  return "the mbarrier at byte " + std::to_string(shared_window_address(wait->address)) +
         " of dynamic shared memory, for parity " + std::to_string(wait->parity) + ": it is in phase " +
         std::to_string(barrier.phase) + " with " + std::to_string(barrier.pending) + " of " +
         std::to_string(barrier.count) + " arrivals and " + std::to_string(barrier.bytes_left) + " bytes to come";
}

}  // namespace

void begin_mbarriers() { barriers.clear(); }

void mbarrier_init(uint64_t* barrier, unsigned count, Where where) {
  check_aligned(barrier, sizeof *barrier, where);
  if (!in_shared_memory(barrier, sizeof *barrier))
    return report("initialises an mbarrier outside the block's shared memory", where);
  if (count == 0 || count >= 1u << 20)
    return report("initialises an mbarrier with a count below 1 or over 2^20 − 1", where);
  barriers[barrier] = {.count = count,
                       .pending = count,
                       .bytes_left = 0,
                       .phase = 0,
                       .rank = running.rank,
                       .made_by = running.thread,
                       .made_in = running.block_epoch,
                       .fenced = false};
}

void fence_mbarrier_init() {
  for (auto& [address, barrier] : barriers)
    if (barrier.rank == running.rank && barrier.made_by == running.thread) barrier.fenced = true;
}

void mbarrier_arrive(uint64_t* address, Where where) {
  if (Barrier* const barrier = find(address, where)) arrive(*barrier, where);
}

void mbarrier_arrive_at(uint64_t* own, int rank, Where where) {
  auto* const address = static_cast<uint64_t*>(shared_memory_of(rank, own, where));
  Barrier* const barrier = find(address, where);
  if (barrier == nullptr) return;
  if (!barrier->fenced)
    return report("arrives from another block at an mbarrier that no fence.mbarrier_init has followed", where);
  arrive(*barrier, where);
}

void mbarrier_arrive_expect_tx(uint64_t* address, unsigned bytes, Where where) {
  Barrier* const barrier = find(address, where);
  if (barrier == nullptr) return;
  barrier->bytes_left += bytes;
  if (barrier->bytes_left > most_bytes) report("expects more bytes at an mbarrier than the 2^20 − 1 of a phase", where);
  arrive(*barrier, where);
}

void mbarrier_wait(uint64_t* address, unsigned parity, Where where) {
  if (!in_shared_memory(address, sizeof *address))
    return report("waits for an mbarrier that is not of its block", where);
  if (find(address, where) == nullptr) return;
  const Wait wait{address, parity & 1};
  wait_until("mbarrier.try_wait", opened, describe, &wait, where);
}

bool mbarrier_takes_copies(uint64_t* address, Where where) {
  const Barrier* const barrier = find(address, where);
  if (barrier == nullptr) return false;
  if (!barrier->fenced) report("copies onto an mbarrier that no fence.mbarrier_init has followed", where);
  return barrier->fenced;
}

void mbarrier_complete_tx(uint64_t* address, unsigned bytes) {
  Barrier& barrier = barriers[address];
  barrier.bytes_left -= bytes;
  open_if_complete(barrier);
}

}  // namespace lathe::simt
