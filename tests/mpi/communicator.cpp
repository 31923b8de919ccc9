// Run by mpirun: every rank runs every test, in the same order.
#include "core/collectives/mpi.h"

#include <chrono>
#include <cstdlib>

#include "tests/support/communicator_checks.h"

namespace lathe::testing {
namespace {

Communicator& group() {
  static const std::unique_ptr<Communicator> made = mpi_communicator();
  return *made;
}

TEST(MpiCommunicator, HasTheRanksThatMpirunStarted) {
  EXPECT_TRUE(started_by_mpi());
  EXPECT_EQ(group().size(), std::atoi(std::getenv("OMPI_COMM_WORLD_SIZE")));
  EXPECT_EQ(group().rank(), std::atoi(std::getenv("OMPI_COMM_WORLD_RANK")));
}

TEST(MpiCommunicator, AddsInAscendingRanks) {
  check_sums<float>(group(), 1000);
  check_sums<bf16>(group(), 333);
  check_sums<f16>(group(), 7);
  check_sums<double>(group(), 129);
  check_sums<int32_t>(group(), 64);
  check_sums<int64_t>(group(), 65);
}

TEST(MpiCommunicator, MovesEveryDtype) {
  check_moves<float>(group(), 1000);
  check_moves<bf16>(group(), 1);
  check_moves<int64_t>(group(), 33);
  check_moves<uint8_t>(group(), 100);
}

TEST(MpiCommunicator, CutsLargeTensorsIntoPieces) {
  check_sums<float>(group(), (1 << 18) + 3);
  check_moves<uint8_t>(group(), (1 << 18) + 5);
}

TEST(MpiCommunicator, NothingIsFine) {
  check_sums<float>(group(), 0);
  check_moves<float>(group(), 0);
}

TEST(MpiCommunicator, RefusesWhatDoesNotFit) { check_refusals(group()); }

TEST(MpiCommunicator, TheBarrierHoldsUntilAllHaveCome) {
  // Rank 0 stamps the time before it enters; nobody leaves earlier than that.
  const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
  group().barrier();
  int64_t entered = now();
  group().barrier();
  const int64_t left = now();
  const Tensor stamps = Tensor::empty({group().size()}, DType::i64);
  group().all_gather(stamps, Tensor::of<int64_t>(std::span<const int64_t>(&entered, 1), {1}));
  for (const int64_t stamp : stamps.span<int64_t>()) EXPECT_LE(stamp, left);  // one machine, one steady clock
}

}  // namespace
}  // namespace lathe::testing
