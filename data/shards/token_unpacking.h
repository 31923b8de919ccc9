// Ids and labels as they lie in a shard, to 32 bits each: what reading rows costs. Several bodies, one result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lathe::data {

// Where the tokens lie: u16 or u32 each, at any address.
enum class StoredId { u16, u32 };

// into_ids[i] = id i; into_labels[i] = the id where bit first_bit + i of the mask (lowest first) is set, -100 where it
// is not. The largest of the ids as u32, 0 of none. `mask` may be read up to 8 bytes beyond its last.
struct TokenUnpacking {
  std::string_view name;  // "avx512", "avx2", "plain"
  uint32_t (*unpack)(StoredId stored, const std::byte* ids, const std::byte* mask, size_t first_bit, size_t count,
                     int32_t* into_ids, int32_t* into_labels);
};

// Those that this machine can run, the fastest first.
std::span<const TokenUnpacking> token_unpackings();

}  // namespace lathe::data
