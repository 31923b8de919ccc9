// Cuts the sequences of one call into tiles and runs them on the thread pool.
#pragma once

#include "core/tensor.h"
#include "core/thread_pool.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/cpu/tile.h"

namespace lathe::kernels {

// The call's part that does not depend on where keys lie; lse may be undefined.
TileCall tile_call(const Tensor& out, const Tensor& lse, const Tensor& q, int64_t kv_heads,
                   const AttentionParams& params);

// New tokens of one sequence, which stand at first_position and after among the sequence's keys.
struct TileSequence {
  KeyRows keys;
  int64_t first_token, tokens, first_position;
};

// Which tiles and which parts of them run at once depends on the shapes and the threads; the results do not.
void run_tiles(const TileCall& call, int64_t kv_heads, int64_t sequences, FunctionRef<TileSequence(int64_t)> sequence);

}  // namespace lathe::kernels
