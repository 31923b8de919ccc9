#include "bench/kernels/ceilings.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own AVX-512 header
#endif
#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "bench/kernels/clock.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simd/isa.h"

namespace lathe::bench {
namespace {

// Independent chains enough to hide the latency of two multiply-adds a cycle; each body returns its operations.
constexpr int chains = 12;
#define LATHE_IN_REGISTERS _Pragma("GCC unroll 12")
constexpr int64_t rounds = 200'000;
volatile float sink;

double multiply_add_sse() {
  __m128 sums[chains];
  for (auto& sum : sums) sum = _mm_set1_ps(1.0f);
  const __m128 factor = _mm_set1_ps(0.999f), term = _mm_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i) {
    LATHE_IN_REGISTERS
    for (int c = 0; c < chains; ++c) sums[c] = _mm_add_ps(_mm_mul_ps(sums[c], factor), term);
  }
  float total = 0;
  for (auto& sum : sums) total += _mm_cvtss_f32(sum);
  sink = total;
  return 2.0 * 4 * chains * rounds;
}

__attribute__((target("avx2,fma"))) double multiply_add_avx2() {
  __m256 sums[chains];
  for (auto& sum : sums) sum = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i) {
    LATHE_IN_REGISTERS
    for (int c = 0; c < chains; ++c) sums[c] = _mm256_fmadd_ps(sums[c], factor, term);
  }
  float total = 0;
  for (auto& sum : sums) total += _mm256_cvtss_f32(sum);
  sink = total;
  return 2.0 * 8 * chains * rounds;
}

__attribute__((target("avx512f"))) double multiply_add_avx512() {
  __m512 sums[chains];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(0.001f);
  for (int64_t i = 0; i < rounds; ++i) {
    LATHE_IN_REGISTERS
    for (int c = 0; c < chains; ++c) sums[c] = _mm512_fmadd_ps(sums[c], factor, term);
  }
  float total = 0;
  for (auto& sum : sums) total += _mm512_cvtss_f32(sum);
  sink = total;
  return 2.0 * 16 * chains * rounds;
}

__attribute__((target("avx512f,avx512bf16"))) double dot_bf16() {
  __m512 sums[chains];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  const __m512bh pairs = (__m512bh)_mm512_set1_epi32(0x3a833a83);
  for (int64_t i = 0; i < rounds; ++i) {
    LATHE_IN_REGISTERS
    for (int c = 0; c < chains; ++c) sums[c] = _mm512_dpbf16_ps(sums[c], pairs, pairs);
  }
  float total = 0;
  for (auto& sum : sums) total += _mm512_cvtss_f32(sum);
  sink = total;
  return 2.0 * 32 * chains * rounds;
}

// The highest rate of several attempts: `attempt` does its work once on all threads and returns how much that was.
template <class Attempt>
double best_rate(int attempts, Attempt attempt) {
  double best = 0;
  for (int i = 0; i < attempts; ++i) {
    const double start = now_seconds();
    const double done = attempt();
    best = std::max(best, done / (now_seconds() - start));
  }
  return best;
}

double peak(double (*body)()) {
  const int threads = thread_count();
  return best_rate(12, [&] {
    std::vector<double> done(static_cast<size_t>(threads));
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) done[static_cast<size_t>(i)] = body();
    });
    return std::accumulate(done.begin(), done.end(), 0.0);
  });
}

// Of copying, of reading alone and of updating four streams in place, whichever is fastest: one thread's single stream keeps too few
// lines on their way, and with the first two alone AdamW came out at twice the "bandwidth".
double bandwidth() {
  const int64_t words = 3 * last_cache_bytes(Device{}) / 8;
  const auto allocate = [&] { return Storage::allocate(words * 8, Device{}, MemoryTag::workspace); };
  const std::shared_ptr<Storage> source = allocate(), target = allocate();
  uint64_t *from = static_cast<uint64_t*>(source->data()), *to = static_cast<uint64_t*>(target->data());
  std::fill_n(from, words, 1);
  std::fill_n(to, words, 0);
  const int64_t grain = int64_t{1} << 17;
  const double copying = best_rate(5, [&] {
    parallel_for(words, grain, [&](int64_t begin, int64_t end) {
      std::memcpy(&to[static_cast<size_t>(begin)], &from[static_cast<size_t>(begin)],
                  static_cast<size_t>(end - begin) * 8);
    });
    return 16.0 * static_cast<double>(words);
  });
  const double reading = best_rate(5, [&] {
    parallel_for(words, grain, [&](int64_t begin, int64_t end) {
      uint64_t sums[8] = {};
      for (int64_t i = begin; i + 8 <= end; i += 8)
        for (int64_t j = 0; j < 8; ++j) sums[j] += from[i + j];
      for (const uint64_t sum : sums) to[begin] += sum;
    });
    return 8.0 * static_cast<double>(words);
  });
  const int64_t quarter = words / 4;
  const double updating = best_rate(5, [&] {
    parallel_for(quarter, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += 8)
        for (int64_t stream = 0; stream < 4; ++stream)
          for (int64_t j = i; j < std::min(i + 8, end); ++j) to[stream * quarter + j] += 1;
    });
    return 16.0 * static_cast<double>(4 * quarter);
  });
  return std::max({copying, reading, updating});
}

}  // namespace

int64_t last_cache_bytes(Device device) {
  if (device.kind != DeviceKind::cpu) return kernels::last_cache_bytes(device);
  const long bytes = std::max(::sysconf(_SC_LEVEL3_CACHE_SIZE), ::sysconf(_SC_LEVEL2_CACHE_SIZE));
  return bytes > 0 ? bytes : int64_t{32} << 20;
}

Ceilings measure_ceilings() {
  using kernels::Isa;
  Ceilings ceilings;
  switch (kernels::active_isa()) {
    case Isa::baseline: ceilings.f32_flops = peak(multiply_add_sse); break;
    case Isa::avx2: ceilings.f32_flops = peak(multiply_add_avx2); break;
    case Isa::avx512:
    case Isa::avx512_bf16: ceilings.f32_flops = peak(multiply_add_avx512); break;
  }
  ceilings.bf16_flops = kernels::active_isa() == Isa::avx512_bf16 ? peak(dot_bf16) : ceilings.f32_flops;
  ceilings.bytes = bandwidth();
  return ceilings;
}

}  // namespace lathe::bench
