#include "kernels/simt/block.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/simt/cluster.h"
#include "kernels/simt/collectives.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/mbarrier.h"
#include "kernels/simt/memory_checks.h"
#include "kernels/simt/options.h"
#include "kernels/simt/tensor_copy.h"
#include "kernels/simt/wgmma.h"

namespace lathe::simt {

RunningThread running;

namespace {

enum class State { ready, at_barrier, at_collective, at_condition, exited };

struct Thread {
  uint3 index;
  State state = State::ready;
  Where where;                 // of the wait
  const char* waits_for = "";  // "__syncthreads", "__shfl_sync"
  unsigned mask = 0;           // of the collective
  void* request = nullptr;
  bool (*arrived)(const void*) = nullptr;  // of a condition
  std::string (*describe)(const void*) = nullptr;
  const void* condition = nullptr;
  bool awaits_grid = false;
  bool at_cluster = false;                // has arrived at barrier.cluster, in the phase that is to open
  std::optional<uint64_t> cluster_phase;  // in which it arrived, and has not waited since
  AsyncCopies copies;
};

struct Block {
  uint3 index;
  std::vector<Thread> threads;
  std::vector<uint32_t> warp_epochs;
  std::vector<int> lanes_at_collectives;  // of each warp, so that only the last to come looks where the others are
  uint32_t epoch = 0;
};

// The blocks that run together, and what was found about the launch so far.
struct Cluster {
  const KernelLaunch* launch = nullptr;
  std::vector<Block> blocks;  // by rank
  uint32_t clock = 0;         // of epochs
  uint32_t arrived = 0;       // threads at barrier.cluster
  uint64_t phase = 0;         // of barrier.cluster
  std::vector<std::string> faults;
  std::set<std::string> places;       // of the faults
  std::set<const void*> faulty_code;  // addresses already looked up
  bool abandoned = false;             // a wait that can never end
};

FiberPool& pool() {
  static FiberPool fibers;
  return fibers;
}

Cluster cluster;
FiberOrder order = FiberOrder::ascending;
uint64_t order_seed = 1;

std::string text_of(const uint3& i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

std::string text_of(const Where& where) { return std::string(where.file_name()) + ":" + std::to_string(where.line()); }

Block& block() { return cluster.blocks[static_cast<size_t>(running.rank)]; }

// One report for each place: the first thread that is at fault stands for all.
void add_fault(const std::string& what, const std::string& place) {
  if (cluster.faults.size() >= 4 || !cluster.places.insert(place).second) return;
  cluster.faults.push_back(std::string("kernel ") + cluster.launch->name + ", block " + text_of(block().index) + ": " +
                           what + place);
}

std::string standing(const Thread& thread) {
  const std::string who = "thread " + text_of(thread.index);
  switch (thread.state) {
    case State::exited: return who + " has exited";
    case State::ready: return who + " runs";
    default: return who + " waits for " + thread.waits_for + " at " + text_of(thread.where);
  }
}

bool same_place(const Thread& a, const Thread& b) {
  return a.where.line() == b.where.line() && a.where.column() == b.where.column() &&
         (a.where.file_name() == b.where.file_name() || std::strcmp(a.where.file_name(), b.where.file_name()) == 0);
}

Thread& current() { return block().threads[static_cast<size_t>(running.thread)]; }

void wait(State state, const char* name, Where where) {
  Thread& thread = current();
  thread.state = state;
  thread.waits_for = name;
  thread.where = where;
  pool().yield();
}

bool is_over(const Block& one) {
  return std::all_of(one.threads.begin(), one.threads.end(),
                     [](const Thread& thread) { return thread.state == State::exited; });
}

// Threads that have exited are not waited for.
void open_cluster_barrier() {
  if (cluster.arrived == 0) return;
  uint32_t expected = 0;
  for (const Block& one : cluster.blocks)
    for (const Thread& thread : one.threads) expected += thread.state != State::exited || thread.at_cluster ? 1 : 0;
  if (cluster.arrived < expected) return;
  cluster.arrived = 0;
  ++cluster.phase;
  for (Block& one : cluster.blocks)
    for (Thread& thread : one.threads) thread.at_cluster = false;
  begin_cluster_epoch();
}

void thread_entry(int) {
  cluster.launch->invoke(cluster.launch->closure);
  Thread& thread = current();
  if (const Where* issued = thread.copies.unfinished())
    add_fault("thread " + text_of(thread.index) + " exits with cp.async copies that it never waited for, issued at ",
              text_of(*issued));
  if (const Where* issued = unfinished_wgmma())
    add_fault("thread " + text_of(thread.index) + " exits with wgmma that it never waited for, issued at ",
              text_of(*issued));
  if (thread.awaits_grid)
    add_fault("thread " + text_of(thread.index) + " exits without having waited for the kernel before a dependent one",
              "");
  thread.state = State::exited;
  open_cluster_barrier();
}

std::vector<int> turn_order(int count, uint64_t salt) {
  std::vector<int> turns(static_cast<size_t>(count));
  std::iota(turns.begin(), turns.end(), 0);
  if (order == FiberOrder::descending) std::reverse(turns.begin(), turns.end());
  if (order == FiberOrder::shuffled) {
    RandomStream random(order_seed, RandomPurpose::test, salt);
    for (size_t i = turns.size(); i > 1; --i) std::swap(turns[i - 1], turns[random.below(i)]);
  }
  return turns;
}

// Nobody can run. Opens the block's barrier where every thread waits at it.
bool open_barrier(Block& one) {
  for (const Thread& thread : one.threads)
    if (thread.state != State::at_barrier || !same_place(one.threads[0], thread)) return false;
  for (Thread& thread : one.threads) thread.state = State::ready;
  return true;
}

// No barrier opens either: somebody waits for threads that will never come.
void report_hang(const Block& one) {
  for (size_t i = 0; i < one.threads.size(); ++i) {
    const Thread& thread = one.threads[i];
    if (thread.state != State::at_collective) continue;
    for (size_t other = i / 32 * 32; other < std::min(i / 32 * 32 + 32, one.threads.size()); ++other) {
      const Thread& lane = one.threads[other];
      if (!(thread.mask >> (other % 32) & 1u)) continue;
      if (lane.state == State::at_collective && lane.mask == thread.mask && same_place(lane, thread)) continue;
      return add_fault(
          "divergent warp collective: " + standing(thread) + ", but " + standing(lane) + ", which its mask names", "");
    }
  }
  bool any = false;
  for (const Thread& thread : one.threads) {
    if (thread.state != State::at_condition) continue;
    add_fault("hang: " + standing(thread), ", " + thread.describe(thread.condition));
    any = true;
  }
  if (any || is_over(one)) return;
  const Thread& first = *std::find_if(one.threads.begin(), one.threads.end(),
                                      [](const Thread& thread) { return thread.state != State::exited; });
  for (const Thread& thread : one.threads)
    if (thread.state != State::at_barrier || !same_place(first, thread))
      return add_fault("divergent barrier: " + standing(first) + ", but " + standing(thread), "");
}

void open_barriers() {
  bool any = false;
  for (size_t rank = 0; rank < cluster.blocks.size(); ++rank)
    if (open_barrier(cluster.blocks[rank])) {
      begin_block_epoch(static_cast<int>(rank));
      any = true;
    }
  if (any) return;
  for (size_t rank = 0; rank < cluster.blocks.size(); ++rank) {
    run_as_block(static_cast<int>(rank));
    report_hang(cluster.blocks[rank]);
  }
  cluster.abandoned = true;
}

// A turn of the thread; false: it has to wait.
bool run_thread(int rank, int index) {
  run_as_block(rank);
  Thread& thread = block().threads[static_cast<size_t>(index)];
  if (thread.state == State::at_condition && thread.arrived(thread.condition)) thread.state = State::ready;
  if (thread.state != State::ready) return false;
  running.thread = index;
  running.warp = index / 32;
  running.awaits_grid = thread.awaits_grid;
  running.warp_epoch = block().warp_epochs[static_cast<size_t>(index / 32)];
  pool().resume(rank * static_cast<int>(block().threads.size()) + index);
  return true;
}

void run_threads() {
  const int count = static_cast<int>(cluster.blocks[0].threads.size());
  const int all = count * static_cast<int>(cluster.blocks.size());
  pool().prepare(all, thread_entry);
  uint64_t round = 0;
  const uint3& first = cluster.blocks[0].index;
  const uint64_t salt = (uint64_t{first.z} << 20) ^ (first.y << 10) ^ first.x;
  while (!cluster.abandoned) {
    bool any_ran = false;
    for (const int i : turn_order(all, (salt << 12) + round++)) any_ran = run_thread(i / count, i % count) || any_ran;
    if (std::all_of(cluster.blocks.begin(), cluster.blocks.end(), is_over)) break;
    if (!any_ran && !land_tensor_copy()) open_barriers();
  }
  running.thread = -1;
  running.awaits_grid = false;
  if (!cluster.abandoned) end_tensor_copies();
}

std::string describe_faults() {
  std::string text;
  for (const std::string& fault : cluster.faults) text += (text.empty() ? "" : "\n") + fault;
  return text;
}

Block make_block(const KernelLaunch& launch, unsigned linear) {
  Block made;
  made.index = {linear % launch.grid.x, linear / launch.grid.x % launch.grid.y, linear / launch.grid.x / launch.grid.y};
  const unsigned count = launch.block.x * launch.block.y * launch.block.z;
  made.threads.assign(count, Thread{});
  made.warp_epochs.assign((count + 31) / 32, 0);
  made.lanes_at_collectives.assign((count + 31) / 32, 0);
  for (unsigned i = 0; i < count; ++i)
    made.threads[i].index = {i % launch.block.x, i / launch.block.x % launch.block.y,
                             i / launch.block.x / launch.block.y};
  for (Thread& thread : made.threads) thread.awaits_grid = launch.dependent;
  return made;
}

}  // namespace

void set_fiber_order(FiberOrder wanted, uint64_t seed) {
  order = wanted;
  order_seed = seed;
}

std::string launch_limits(const KernelLaunch& launch) {
  const auto beyond = [&](const std::string& what) {
    return "kernel " + std::string(launch.name) + " cannot be launched: " + what;
  };
  const uint64_t threads = uint64_t{launch.block.x} * launch.block.y * launch.block.z;
  if (threads == 0 || threads > max_threads_per_block || launch.block.z > 64)
    return beyond(std::to_string(threads) + " threads in a block, at most 1024 are allowed (64 along z)");
  if (launch.grid.x == 0 || launch.grid.y == 0 || launch.grid.z == 0 || launch.grid.x > 0x7fffffffu ||
      launch.grid.y > 65535 || launch.grid.z > 65535)
    return beyond("a grid of " + std::to_string(launch.grid.x) + " × " + std::to_string(launch.grid.y) + " × " +
                  std::to_string(launch.grid.z) + " blocks; each extent is at least 1, and y and z at most 65535");
  if (launch.cluster > 1 && !has_clusters()) return beyond("clusters want a card of sm_90");
  if (launch.cluster == 0 || launch.cluster > most_cluster_blocks || launch.grid.x % launch.cluster != 0)
    return beyond("clusters of " + std::to_string(launch.cluster) + " blocks along a grid of " +
                  std::to_string(launch.grid.x) + "; 1 to 8 make up the grid");
  if (launch.dynamic_bytes > shared_bytes_of_block())
    return beyond(std::to_string(launch.dynamic_bytes) + " bytes of dynamic shared memory, the card has " +
                  std::to_string(shared_bytes_of_block()));
  return "";
}

std::string run_grid(const KernelLaunch& launch) {
  const int count = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  const uint64_t clusters = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z / launch.cluster;
  cluster.launch = &launch;
  cluster.faults.clear();
  cluster.places.clear();
  cluster.faulty_code.clear();
  cluster.abandoned = false;
  const std::vector<int> turns = turn_order(static_cast<int>(clusters), ~uint64_t{0});
  for (const int turn : turns) {
    cluster.blocks.clear();
    for (unsigned rank = 0; rank < launch.cluster; ++rank)
      cluster.blocks.push_back(make_block(launch, static_cast<unsigned>(turn) * launch.cluster + rank));
    cluster.arrived = 0;
    cluster.phase = 0;
    begin_cluster_epoch();
    run_as_block(0);
    begin_shared_memory(launch.dynamic_bytes, static_cast<int>(launch.cluster));
    begin_mbarriers();
    begin_tensor_copies(order != FiberOrder::descending);
    begin_wgmma(count, static_cast<int>(launch.cluster));
    run_threads();
    end_shared_memory();
    if (!cluster.faults.empty()) break;
  }
  return describe_faults();
}

const uint3& thread_index() { return current().index; }
const uint3& block_index() { return block().index; }
const dim3& block_shape() { return cluster.launch->block; }
const dim3& grid_shape() { return cluster.launch->grid; }
int lane() { return running.thread % 32; }

void report(const char* what, Where where) {
  add_fault("thread " + text_of(current().index) + " " + what + ", at ", text_of(where));
}

void report_of_thread(int thread, const std::string& what, Where where) {
  add_fault("thread " + text_of(block().threads[static_cast<size_t>(thread)].index) + " " + what + ", at ",
            text_of(where));
}

void report_at(const char* what, const void* code_address) {
  if (!cluster.faulty_code.insert(code_address).second) return;
  add_fault("thread " + text_of(current().index) + " " + what + ", at ", source_line(code_address));
}

void wait_until(const char* name, bool (*arrived)(const void*), std::string (*describe)(const void*), const void* what,
                Where where) {
  if (arrived(what)) return;
  Thread& thread = current();
  thread.arrived = arrived;
  thread.describe = describe;
  thread.condition = what;
  wait(State::at_condition, name, where);
}

void grid_dependency_wait() {
  current().awaits_grid = false;
  running.awaits_grid = false;
}

void begin_block_epoch(int rank) {
  cluster.blocks[static_cast<size_t>(rank)].epoch = ++cluster.clock;
  if (rank == running.rank) running.block_epoch = cluster.clock;
}
void begin_cluster_epoch() {
  ++cluster.clock;
  for (Block& one : cluster.blocks) one.epoch = cluster.clock;
  running.block_epoch = running.cluster_epoch = cluster.clock;
}
void run_as_block(int rank) {
  running.rank = rank;
  running.block_epoch = block().epoch;
}

int cluster_rank() { return running.rank; }
int cluster_blocks() { return static_cast<int>(cluster.blocks.size()); }

void cluster_arrive(Where where) {
  Thread& thread = current();
  if (thread.cluster_phase) return report("arrives at barrier.cluster twice with no wait between", where);
  thread.at_cluster = true;
  thread.cluster_phase = cluster.phase;
  ++cluster.arrived;
  open_cluster_barrier();
}

void cluster_wait(Where where) {
  Thread& thread = current();
  if (!thread.cluster_phase) return report("waits at barrier.cluster, where it has not arrived", where);
  const uint64_t phase = *thread.cluster_phase;
  thread.cluster_phase.reset();
  wait_until(
      "barrier.cluster.wait", [](const void* what) { return cluster.phase > *static_cast<const uint64_t*>(what); },
      [](const void*) {
        return "at which " + std::to_string(cluster.arrived) + " threads of the cluster have arrived";
      },
      &phase, where);
}

const char* why_no_peer(int rank) {
  if (cluster.phase == 0)
    return "reaches for another block of its cluster before a barrier.cluster has said that it is there";
  if (is_over(cluster.blocks[static_cast<size_t>(rank)])) return "reaches for a block of its cluster that has exited";
  return nullptr;
}

void __syncthreads(Where where) { wait(State::at_barrier, "__syncthreads", where); }

void warp_collective(const char* name, unsigned mask, void* request, Complete complete, Where where) {
  Thread& self = current();
  const int count = static_cast<int>(block().threads.size());
  const int first = running.warp * 32;
  if (!(mask >> lane() & 1u)) return report("calls a warp collective with a mask that leaves itself out", where);
  // Lanes beyond the block's last thread do not exist; CUDA lets a full mask stand for those that do.
  const unsigned existing = count - first >= 32 ? 0xffffffffu : (1u << (count - first)) - 1u;
  const unsigned wanted = mask & existing;
  self.mask = mask;
  self.request = request;
  self.state = State::at_collective;
  self.waits_for = name;
  self.where = where;
  int& waiting = block().lanes_at_collectives[static_cast<size_t>(running.warp)];
  if (++waiting < std::popcount(wanted)) return pool().yield();
  void* requests[32] = {};
  for (int i = 0; i < 32; ++i) {
    if (!(wanted >> i & 1u)) continue;
    const Thread& other = block().threads[static_cast<size_t>(first) + static_cast<size_t>(i)];
    if (other.state != State::at_collective || other.mask != mask || !same_place(other, self)) {
      pool().yield();  // the last lane to arrive completes for all
      return;
    }
    requests[i] = other.request;
  }
  complete(requests, wanted);
  waiting -= std::popcount(wanted);
  for (int i = 0; i < 32; ++i)
    if (wanted >> i & 1u) block().threads[static_cast<size_t>(first) + static_cast<size_t>(i)].state = State::ready;
}

void __syncwarp(unsigned mask, Where where) {
  char nothing = 0;
  warp_collective(
      "__syncwarp", mask, &nothing,
      [](void* const*, unsigned) { ++block().warp_epochs[static_cast<size_t>(running.warp)]; }, where);
  running.warp_epoch = block().warp_epochs[static_cast<size_t>(running.warp)];
}

void async_copy(void* shared, const void* global, int bytes, int valid_bytes, Where where) {
  if (bytes != 4 && bytes != 8 && bytes != 16)
    return report("issues a cp.async that is not of 4, 8 or 16 bytes", where);
  check_aligned(shared, static_cast<size_t>(bytes), where);
  if (valid_bytes > 0) check_aligned(global, static_cast<size_t>(bytes), where);
  if (!in_shared_memory(shared, static_cast<size_t>(bytes)))
    return report("issues a cp.async to an address outside the block's shared memory", where);
  current().copies.issue(shared, global, bytes, valid_bytes, where);
}
void async_commit() { current().copies.commit(); }
void async_wait(int groups_left) { current().copies.wait(groups_left); }

void check_aligned(const void* address, size_t bytes, Where where) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) report("makes a misaligned vector access", where);
}

namespace {

struct Vote {
  unsigned value;
  unsigned result;
};

template <class Combine>
unsigned reduce(const char* name, unsigned mask, unsigned value, Combine, Where where) {
  Vote vote{value, 0};
  warp_collective(
      name, mask, &vote,
      [](void* const* requests, unsigned lanes) {
        bool first = true;
        unsigned total = 0;
        for (int i = 0; i < 32; ++i) {
          if (!(lanes >> i & 1u)) continue;
          const unsigned next = static_cast<Vote*>(requests[i])->value;
          total = first ? next : Combine{}(total, next);
          first = false;
        }
        for (int i = 0; i < 32; ++i)
          if (lanes >> i & 1u) static_cast<Vote*>(requests[i])->result = total;
      },
      where);
  return vote.result;
}

struct Add {
  unsigned operator()(unsigned a, unsigned b) const { return a + b; }
};
struct Max {
  unsigned operator()(unsigned a, unsigned b) const { return std::max(a, b); }
};
struct Min {
  unsigned operator()(unsigned a, unsigned b) const { return std::min(a, b); }
};
struct Or {
  unsigned operator()(unsigned a, unsigned b) const { return a | b; }
};

}  // namespace

unsigned __reduce_add_sync(unsigned mask, unsigned value, Where where) {
  return reduce("__reduce_add_sync", mask, value, Add{}, where);
}
unsigned __reduce_max_sync(unsigned mask, unsigned value, Where where) {
  return reduce("__reduce_max_sync", mask, value, Max{}, where);
}
unsigned __reduce_min_sync(unsigned mask, unsigned value, Where where) {
  return reduce("__reduce_min_sync", mask, value, Min{}, where);
}
unsigned __ballot_sync(unsigned mask, int predicate, Where where) {
  return reduce("__ballot_sync", mask, predicate != 0 ? 1u << lane() : 0u, Or{}, where);
}

unsigned __match_any_sync(unsigned mask, uint64_t value, Where where) {
  struct Match {
    uint64_t value;
    unsigned result;
  } match{value, 0};
  warp_collective(
      "__match_any_sync", mask, &match,
      [](void* const* requests, unsigned lanes) {
        for (int i = 0; i < 32; ++i)
          for (int j = 0; j < 32; ++j)
            if ((lanes >> i & 1u) && (lanes >> j & 1u) &&
                static_cast<Match*>(requests[i])->value == static_cast<Match*>(requests[j])->value)
              static_cast<Match*>(requests[i])->result |= 1u << j;
      },
      where);
  return match.result;
}

unsigned __activemask() { return 1u << lane(); }  // the lanes that are certain to be converged: this one

}  // namespace lathe::simt
