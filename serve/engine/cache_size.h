// How large a KV cache is where nobody says it.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "nn/transformer.h"

namespace lathe::engine {

// Bytes for keys and values: a quarter of the free memory of a CPU, which others live from, too, or three quarters of
// a device's; at most what `max_sequences` sequences of the model's whole context need, at least one such sequence.
// `free_bytes` as the system says it once the model is loaded.
int64_t kv_cache_bytes(const nn::Transformer& model, DType dtype, int64_t max_sequences, int64_t free_bytes);

}  // namespace lathe::engine
