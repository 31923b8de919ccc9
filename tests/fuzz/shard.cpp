// A shard whose hashes are right, whatever it holds: what a person could write by hand.
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "data/shards/shard_file.h"
#include "tests/fuzz/input_file.h"

namespace {

using lathe::data::ShardHeader;

// As far as the header says where the hashes lie.
uint64_t mend_hashes(std::string& bytes) {
  ShardHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.hashes_at >= sizeof header && header.hashes_at <= bytes.size()) {
    for (size_t begin = sizeof header, at = header.hashes_at; begin < header.hashes_at && at + 8 <= bytes.size();
         begin += 65536, at += 8) {
      const uint64_t hash = XXH64(bytes.data() + begin, std::min<size_t>(65536, header.hashes_at - begin), 0);
      std::memcpy(bytes.data() + at, &hash, sizeof hash);
    }
    header.hashes_xxh64 = XXH64(bytes.data() + header.hashes_at, bytes.size() - header.hashes_at, 0);
  }
  header.header_xxh64 = XXH64(&header, sizeof header - sizeof header.header_xxh64, 0);
  std::memcpy(bytes.data(), &header, sizeof header);
  return header.header_xxh64;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  std::string bytes(fuzz::text_of(data, size));
  const uint64_t hash = bytes.size() >= sizeof(ShardHeader) ? mend_hashes(bytes) : 0;
  const auto path = fuzz::write_input("shard.bin", bytes);
  try {
    const data::ShardFile shard(path, hash);
    std::vector<int32_t> ids, labels;
    for (int64_t row = 0; row < shard.rows(); ++row) {
      const auto [first, last] = shard.sequences_of_row(row);
      for (int64_t s = first; s < last && ids.size() < 1 << 20; ++s) {
        ids.resize(static_cast<size_t>(shard.sequence_tokens(s)));
        labels.resize(ids.size());
        shard.read_sequences(s, s + 1, ids, labels);
      }
    }
    shard.verify();
  } catch (const Error&) {
  }
  return 0;
}
