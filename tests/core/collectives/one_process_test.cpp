#include "tests/support/communicator_checks.h"

namespace lathe::testing {
namespace {

TEST(OneProcess, IsAGroupOfOne) {
  const auto group = one_process_communicator();
  EXPECT_EQ(group->rank(), 0);
  EXPECT_EQ(group->size(), 1);
  check_sums<float>(*group, 100);
  check_sums<bf16>(*group, 3);
  check_sums<int64_t>(*group, 0);
  check_moves<uint8_t>(*group, 17);
  group->barrier();
}

TEST(OneProcess, RefusesWhatDoesNotFit) { check_refusals(*one_process_communicator()); }

}  // namespace
}  // namespace lathe::testing
