// How the simt device runs, and what it found: for tests and for debugging.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lathe::simt {

// The order in which the threads of a block, and the blocks of a grid, take their turns. A kernel that is right gives
// the same bits under all of them.
enum class FiberOrder { ascending, descending, shuffled };
void set_fiber_order(FiberOrder order, uint64_t seed = 1);

// Whether reads and writes of shared memory are checked here: races, reads of what nobody wrote or of copies under way.
// Not in AddressSanitizer's and ThreadSanitizer's builds, which instrument the kernels themselves.
bool checks_shared_memory();

// The n-th call from now of that kind fails (1: the next one); 0 takes it back. The launch of a graph is one launch;
// capture stands for the begin of one and for making an executable graph of it.
enum class Call { allocation, launch, copy, capture };
void fail_nth(Call call, int64_t n);

// What a program finds when it looks for devices: none with a driver that is too old, one of another compute
// capability (both before it has looked for the first time), two of 8.0 (the default), or two of 9.0.
enum class Machine { two_cards, no_driver, old_card, hopper };
void pretend(Machine machine);

// Whether kernels run (they do, unless told otherwise) or are queued, counted and left out: for what looks at memory or
// launches, which do not depend on numbers. What kernels would have written is not there.
void set_runs_kernels(bool run);
bool runs_kernels();

// Kernel launches that have run, or been left out, since the program started.
int64_t launches_run();

}  // namespace lathe::simt
