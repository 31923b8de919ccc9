#include "serve/engine/state_slots.h"

#include <gtest/gtest.h>

namespace lathe::engine {
namespace {

TEST(StateSlots, SequencesTakeWhatPagesHaveTheOneThatWasUsedLongestAgoFirst) {
  StateSlots slots(3);
  const int32_t first = slots.remember(7), second = slots.remember(8);
  EXPECT_NE(first, no_state);
  EXPECT_NE(second, no_state);
  EXPECT_EQ(slots.remember(7), no_state) << "it has one";
  EXPECT_EQ(slots.use(7), first);  // 8 is now the one used longest ago
  const int32_t free = slots.take();
  EXPECT_NE(free, first);
  EXPECT_NE(free, second);
  EXPECT_EQ(slots.take(), second);
  EXPECT_FALSE(slots.contains(8));
  EXPECT_TRUE(slots.contains(7));
  EXPECT_EQ(slots.take(), first);
  EXPECT_EQ(slots.take(), no_state) << "sequences have all";
  EXPECT_EQ(slots.remember(9), no_state);
  slots.release(second);
  EXPECT_EQ(slots.remember(9), second);
}

TEST(StateSlots, WhatIsForgottenIsFreeOnce) {
  StateSlots slots(2);
  slots.remember(4);
  slots.forget(4);
  slots.forget(4);
  slots.remember(5);
  slots.remember(6);
  slots.forget_pages();
  EXPECT_NE(slots.take(), no_state);
  EXPECT_NE(slots.take(), no_state);
  EXPECT_EQ(slots.take(), no_state);
}

}  // namespace
}  // namespace lathe::engine
