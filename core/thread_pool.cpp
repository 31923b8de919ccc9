#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/fork_count.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace lathe {
namespace {

thread_local int this_thread_index = 0;
thread_local bool inside_parallel_for = false;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// CPUs that the cgroup's quota allows, rounded up; a large number where there is none.
int quota_cpus() {
  double quota = -1;
  double period = 0;
  const auto read = [](const char* path, const char* format, double* a, double* b) {
    std::FILE* const file = std::fopen(path, "re");
    if (file == nullptr) return;
    if (std::fscanf(file, format, a, b) < 1) *a = -1;
    std::fclose(file);
  };
  read("/sys/fs/cgroup/cpu.max", "%lf %lf", &quota, &period);  // v2: "max 100000" leaves the quota at -1
  if (quota <= 0) {
    double unused = 0;
    read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "%lf", &quota, &unused);
    read("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "%lf", &period, &unused);
  }
  if (quota <= 0 || period <= 0) return std::numeric_limits<int>::max();
  return std::max(1, static_cast<int>((quota + period - 1) / period));
}

int usable_cpus() {
  static const int cpus = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    int allowed = 0;
    if (::sched_getaffinity(0, sizeof set, &set) == 0) allowed = CPU_COUNT(&set);
    if (allowed <= 0) allowed = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    return std::min(allowed, quota_cpus());
  }();
  return cpus;
}

// A condition that its waiters spin on before they sleep: a fork or join inside a decode step comes within
// microseconds, a wake-up through the kernel costs 5 to 50 of them.
class SpinThenSleep {
 public:
  template <class Condition>
  void wait(bool spin, const Condition& ready) {
    if (ready()) return;
    if (spin) {
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(40);
      do {
        for (int i = 0; i < 32; ++i) {
          pause_briefly();
          if (ready()) return;
        }
      } while (std::chrono::steady_clock::now() < deadline);
    }
    std::unique_lock lock(mutex_);
    // Sequentially consistent against wake(): either it sees this sleeper or ready() sees its change.
    sleepers_.fetch_add(1);
    condition_.wait(lock, ready);
    sleepers_.fetch_sub(1);
  }

  // Called after a sequentially consistent change of what ready() reads.
  void wake() {
    if (sleepers_.load() == 0) return;
    { const std::lock_guard lock(mutex_); }
    condition_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  std::atomic<int> sleepers_{0};
};

// One job at a time. `ticket_` holds (job number, next chunk); a thread claims a chunk by advancing it. The job's
// fields are written only when the job before is finished and its ticket closed, and are read before the claim: a
// claim that succeeds proves that they belong to the claimed job. So the caller waits for claimed chunks only, never
// for a worker that the system has not woken yet.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) : spin_(threads <= usable_cpus()) {
    for (int index = 1; index < threads; ++index) {
      workers_.emplace_back([this, index] { work(index); });
    }
  }

  ~ThreadPool() {
    stopping_.store(true);
    work_.wake();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(int64_t n, int64_t grain, int64_t chunks, FunctionRef<void(int64_t, int64_t)> body) {
    const uint64_t last_job = ticket_.load() >> 32;
    ticket_.store((last_job << 32) | closed);
    n_.store(n, std::memory_order_release);
    grain_.store(grain, std::memory_order_release);
    chunks_.store(chunks, std::memory_order_release);
    body_.store(&body, std::memory_order_release);
    lowest_failed_.store(std::numeric_limits<int64_t>::max(), std::memory_order_release);
    unfinished_.store(chunks, std::memory_order_release);
    ticket_.store((last_job + 1) << 32);
    work_.wake();

    run_chunks();
    done_.wait(spin_, [this] { return unfinished_.load() == 0; });
    if (failure_) {
      std::exception_ptr failure;
      std::swap(failure, failure_);
      std::rethrow_exception(failure);
    }
  }

 private:
  void work(int index) {
    this_thread_index = index;
    inside_parallel_for = true;
    uint64_t seen = 0;
    for (;;) {
      work_.wait(spin_, [&] { return stopping_.load() || (ticket_.load() >> 32) != seen; });
      if (stopping_.load()) return;
      seen = run_chunks();
    }
  }

  // Claims and runs chunks until none is left; returns the number of the job that had none.
  uint64_t run_chunks() {
    uint64_t ticket = ticket_.load();
    for (;;) {
      const auto chunk = static_cast<int64_t>(ticket & 0xffffffffu);
      // Acquire: whoever reads a field of a newer job also finds this ticket closed, and fails to claim.
      const int64_t n = n_.load(std::memory_order_acquire);
      const int64_t grain = grain_.load(std::memory_order_acquire);
      const int64_t chunks = chunks_.load(std::memory_order_acquire);
      const auto* const body = body_.load(std::memory_order_acquire);
      if (chunk >= chunks) return ticket >> 32;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1)) continue;
      run_chunk(*body, chunk, chunk * grain, std::min(n, (chunk + 1) * grain));
      if (unfinished_.fetch_sub(1) == 1) done_.wake();
      ticket = ticket_.load();
    }
  }

  // Chunks after a failed one are skipped, never those before it: the exception that is kept is the lowest chunk's.
  void run_chunk(const FunctionRef<void(int64_t, int64_t)>& body, int64_t chunk, int64_t begin, int64_t end) {
    if (chunk > lowest_failed_.load(std::memory_order_relaxed)) return;
    try {
      body(begin, end);
    } catch (...) {
      const std::lock_guard lock(failure_mutex_);
      if (chunk > lowest_failed_.load(std::memory_order_relaxed)) return;
      lowest_failed_.store(chunk, std::memory_order_relaxed);
      failure_ = std::current_exception();
    }
  }

  static constexpr uint64_t closed = 0xffffffffu;  // above every chunk: nothing can be claimed

  const bool spin_;  // not where threads outnumber CPUs: a spinning one would hold up the one it waits for
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<int64_t> n_{0};
  std::atomic<int64_t> grain_{1};
  std::atomic<int64_t> chunks_{0};
  std::atomic<const FunctionRef<void(int64_t, int64_t)>*> body_{nullptr};
  std::atomic<int64_t> lowest_failed_{0};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  SpinThenSleep work_;
  SpinThenSleep done_;
  std::vector<std::thread> workers_;
};

struct Process {
  std::mutex mutex;  // held for the length of a job
  std::atomic<int> threads{usable_cpus()};
  std::atomic<int64_t> forks{0};
  std::unique_ptr<ThreadPool> pool;  // created by the first job that has work for more than one thread
};

Process& process() {
  static Process instance;
  return instance;
}

void run_inline(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  for (int64_t begin = 0; begin < n; begin += grain) body(begin, n - begin < grain ? n : begin + grain);
}

}  // namespace

void set_thread_count(int threads) {
  if (threads < 1) throw ConfigError("threads", "expected at least 1, found " + std::to_string(threads));
  if (inside_parallel_for) throw Error("set_thread_count was called from within a parallel_for");
  Process& p = process();
  const std::lock_guard lock(p.mutex);
  if (threads == p.threads) return;
  p.pool.reset();
  p.threads = threads;
}

int thread_count() { return process().threads; }

int64_t fork_count() { return process().forks.load(std::memory_order_relaxed); }

int thread_index() { return this_thread_index; }

void parallel_for_ranges(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (n <= 0) return;
  grain = std::clamp<int64_t>(grain, 1, n);
  const int64_t chunks = (n - 1) / grain + 1;
  if (chunks == 1 || inside_parallel_for || chunks >= std::numeric_limits<uint32_t>::max()) {
    return run_inline(n, grain, body);
  }
  Process& p = process();
  const std::unique_lock lock(p.mutex, std::try_to_lock);
  if (!lock.owns_lock() || p.threads == 1) return run_inline(n, grain, body);
  if (!p.pool) p.pool = std::make_unique<ThreadPool>(p.threads);
  struct Inside {
    Inside() { inside_parallel_for = true; }
    ~Inside() { inside_parallel_for = false; }
  } const inside;
  p.forks.fetch_add(1, std::memory_order_relaxed);
  p.pool->run(n, grain, chunks, body);
}

}  // namespace lathe
