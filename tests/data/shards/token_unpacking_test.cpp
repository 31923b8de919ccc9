#include "data/shards/token_unpacking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/random.h"

namespace lathe::data {
namespace {

std::string name_of(const testing::TestParamInfo<StoredId>& info) {
  return info.param == StoredId::u16 ? "U16" : "U32";
}

class TokenUnpackingTest : public testing::TestWithParam<StoredId> {};

// Every count around the widths of registers, from every bit of a byte, at addresses of no alignment; what lies beyond
// what is asked for stays as it was.
TEST_P(TokenUnpackingTest, EveryBodyGivesTheIdsAndTheLabelsOfTheMask) {
  RandomStream random(11, RandomPurpose::test);
  const size_t id_bytes = GetParam() == StoredId::u16 ? 2 : 4;
  const uint64_t ids_end = GetParam() == StoredId::u16 ? 65536 : uint64_t{1} << 32;
  for (size_t count = 0; count < 140; ++count) {
    for (size_t first_bit = 0; first_bit < 8; ++first_bit) {
      std::vector<std::byte> ids(1 + count * id_bytes), mask((first_bit + count + 7) / 8 + 8);
      std::vector<int32_t> expected_ids(count), expected_labels(count);
      uint32_t largest = 0;
      for (std::byte& byte : mask) byte = static_cast<std::byte>(random.below(256));
      for (size_t i = 0; i < count; ++i) {
        const auto id = static_cast<uint32_t>(random.below(ids_end));
        std::memcpy(ids.data() + 1 + i * id_bytes, &id, id_bytes);
        largest = std::max(largest, id);
        const size_t bit = first_bit + i;
        expected_ids[i] = static_cast<int32_t>(id);
        expected_labels[i] =
            (static_cast<uint32_t>(mask[bit / 8]) >> (bit % 8) & 1) != 0 ? static_cast<int32_t>(id) : -100;
      }
      expected_ids.push_back(77);
      expected_labels.push_back(77);
      for (const TokenUnpacking& body : token_unpackings()) {
        std::vector<int32_t> found_ids(count + 1, 77), found_labels(count + 1, 77);
        EXPECT_EQ(body.unpack(GetParam(), ids.data() + 1, mask.data(), first_bit, count, found_ids.data(),
                              found_labels.data()),
                  largest);
        ASSERT_EQ(found_ids, expected_ids) << body.name << ", " << count << " from bit " << first_bit;
        ASSERT_EQ(found_labels, expected_labels) << body.name << ", " << count << " from bit " << first_bit;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, TokenUnpackingTest, testing::Values(StoredId::u16, StoredId::u32), name_of);

}  // namespace
}  // namespace lathe::data
