#include "core/digits.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

TEST(Digits, AHashHasSixteen) {
  EXPECT_EQ(hash_digits(0), "0000000000000000");
  EXPECT_EQ(hash_digits(0xc0ffee00c0ffee), "00c0ffee00c0ffee");
  EXPECT_EQ(hash_digits(UINT64_MAX), "ffffffffffffffff");
}

TEST(Digits, AreGroupedByThrees) {
  EXPECT_EQ(grouped_digits(0), "0");
  EXPECT_EQ(grouped_digits(999), "999");
  EXPECT_EQ(grouped_digits(-999), "-999");
  EXPECT_EQ(grouped_digits(7245139968), "7,245,139,968");
  EXPECT_EQ(grouped_digits(-123456), "-123,456");
}

}  // namespace
}  // namespace lathe
