#include "core/thread_pool.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace lathe {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_thread_count(GetParam()); }
  void TearDown() override { set_thread_count(2); }
};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

TEST_P(ThreadPoolTest, CoversEveryItemOnceInRangesOfTheGrain) {
  for (const int64_t n : {0, 1, 2, 7, 64, 1000}) {
    for (const int64_t grain : {1, 3, 64, 5000}) {
      std::vector<int> visits(static_cast<size_t>(n));  // plain ints: TSan sees any range handed out twice
      std::atomic<int64_t> calls{0};
      parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        EXPECT_EQ(begin % grain, 0);
        EXPECT_EQ(end, std::min(n, begin + grain));
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        ++calls;
      });
      for (const int count : visits) ASSERT_EQ(count, 1);
      EXPECT_EQ(calls, (n + grain - 1) / grain);
    }
  }
}

// Many short jobs of changing size in a row: a worker that comes late must never touch the next job.
TEST_P(ThreadPoolTest, ThousandsOfJobsInARowStayApart) {
  RandomStream random(3, RandomPurpose::test);
  std::vector<int64_t> cells(97);
  for (int64_t job = 0; job < 3000; ++job) {
    const auto n = static_cast<int64_t>(1 + random.below(cells.size()));
    parallel_for(n, 1 + job % 5, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) cells[static_cast<size_t>(i)] = job;
    });
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(cells[static_cast<size_t>(i)], job);
  }
}

TEST_P(ThreadPoolTest, RethrowsTheLowestRangesException) {
  for (int repeat = 0; repeat < 200; ++repeat) {
    try {
      parallel_for(50, 1, [](int64_t begin, int64_t) {
        if (begin >= 10) throw std::runtime_error(std::to_string(begin));
      });
      FAIL();
    } catch (const std::runtime_error& error) {
      ASSERT_STREQ(error.what(), "10");
    }
  }
  int64_t sum = 0;
  std::mutex mutex;
  parallel_for(10, 1, [&](int64_t begin, int64_t) {
    const std::lock_guard lock(mutex);
    sum += begin;
  });
  EXPECT_EQ(sum, 45) << "the pool works on after an exception";
}

TEST_P(ThreadPoolTest, NestedCallsRunInlineOnTheSameThread) {
  std::atomic<int> items{0};
  parallel_for(8, 1, [&](int64_t, int64_t) {
    const int outer = thread_index();
    const auto id = std::this_thread::get_id();
    parallel_for(4, 1, [&](int64_t, int64_t) {
      EXPECT_EQ(thread_index(), outer);
      EXPECT_EQ(std::this_thread::get_id(), id);
      ++items;
    });
  });
  EXPECT_EQ(items, 32);
}

TEST_P(ThreadPoolTest, IndicesAreDistinctAndInRange) {
  std::mutex mutex;
  std::vector<std::set<std::thread::id>> threads_of(static_cast<size_t>(thread_count()));
  for (int repeat = 0; repeat < 20; ++repeat) {
    parallel_for(64, 1, [&](int64_t, int64_t) {
      const std::lock_guard lock(mutex);
      threads_of.at(static_cast<size_t>(thread_index())).insert(std::this_thread::get_id());
    });
  }
  for (const auto& ids : threads_of) EXPECT_LE(ids.size(), 1u);
  // Number 0 is the caller, where the workers left it anything to do.
  for (const auto& id : threads_of[0]) EXPECT_EQ(id, std::this_thread::get_id());
  for (size_t index = 1; index < threads_of.size(); ++index) {
    EXPECT_FALSE(threads_of[index].contains(std::this_thread::get_id()));
  }
  EXPECT_EQ(thread_index(), 0);
}

// Each worker is needed: as many ranges as threads, none of which ends before all have begun.
TEST_P(ThreadPoolTest, AllThreadsWorkAtOnce) {
  const int threads = thread_count();
  std::atomic<int> begun{0};
  parallel_for(threads, 1, [&](int64_t, int64_t) {
    ++begun;
    while (begun < threads) std::this_thread::yield();
  });
  EXPECT_EQ(begun, threads);
}

TEST_P(ThreadPoolTest, SeveralCallersAtOnceAllFinish) {
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(4);
  for (size_t caller = 0; caller < sums.size(); ++caller) {
    callers.emplace_back([&, caller] {
      for (int repeat = 0; repeat < 300; ++repeat) {
        std::vector<int64_t> squares(20);
        parallel_for(20, 3, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) squares[static_cast<size_t>(i)] = i * i;
        });
        for (const int64_t square : squares) sums[caller] += square;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const int64_t sum : sums) EXPECT_EQ(sum, 300 * 2470);
}

TEST(ThreadPool, CountsAreCheckedAndChangeable) {
  EXPECT_THROW(set_thread_count(0), ConfigError);
  for (const int threads : {1, 4, 2, 2}) {
    set_thread_count(threads);
    EXPECT_EQ(thread_count(), threads);
    std::atomic<int> items{0};
    parallel_for(10, 1, [&](int64_t, int64_t) { ++items; });
    EXPECT_EQ(items, 10);
  }
  parallel_for(2, 1, [](int64_t, int64_t) { EXPECT_THROW(set_thread_count(3), Error); });
  EXPECT_EQ(thread_count(), 2);
}

// CPU time, not wall time: while the caller waits 400 ms, a worker may spend its spin before sleep (40 µs); one that
// never slept would burn up to 400 ms.
TEST(ThreadPool, IdleWorkersSleep) {
  set_thread_count(2);
  parallel_for(8, 1, [](int64_t, int64_t) {});
  const auto process_cpu = [] {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  };
  const auto before = process_cpu();
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, std::chrono::milliseconds(400), [] { return false; });
  EXPECT_LT(process_cpu() - before, std::chrono::milliseconds(100));
}

}  // namespace
}  // namespace lathe
