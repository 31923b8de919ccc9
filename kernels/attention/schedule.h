// Cuts a call on the CPU into pieces and runs them on the thread pool. Which pieces run at once depends on the shapes
// and the threads; the results do not.
#pragma once

#include <span>

#include "core/tensor.h"
#include "core/thread_pool.h"
#include "kernels/attention/cpu/arguments.h"

namespace lathe::kernels {

// The forward's call, for keys and values of q's dtype; lse may be undefined.
AttentionTileArgs::Call attention_tile_call(const Tensor& out, const Tensor& lse, const Tensor& q, int64_t kv_heads,
                                            const AttentionParams& params);

// New tokens of one sequence, which stand at first_position and after among the sequence's keys.
struct AttentionSequence {
  KeysAndValues keys;
  int64_t first_token, tokens, first_position;
};

// `sequence(s)` for s in [0, sequences).
void run_attention_tiles(const AttentionTileArgs::Call& call, int64_t sequences,
                         FunctionRef<AttentionSequence(int64_t)> sequence);

// bounds: the sequences' tokens, cu_seqlens. Fills in call.dots.
void run_attention_gradients(AttentionGradientArgs::Call call, std::span<const int32_t> bounds);

}  // namespace lathe::kernels
