#include "bench/kernels/ceilings.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own AVX-512 header
#endif
#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "bench/kernels/clock.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simd/isa.h"
#include "kernels/simd/tile_configuration.h"

namespace lathe::bench {
namespace {

// Enough independent chains to hide the latency of two multiply-adds a cycle. Each body returns its operations.
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

// Four tiles of sums, as products have them. (The tiles hold zeros: no multiplication is faster for that.)
__attribute__((target("amx-tile,amx-bf16"))) double multiply_tiles() {
  _tile_loadconfig(&kernels::tile_configuration);
  constexpr int64_t steps = rounds / 4;
  for (int64_t i = 0; i < steps; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 2.0 * 16 * 16 * 32 * 4 * steps;
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
  // Many: a second thread may begin on the first one's core, until the system moves it.
  return best_rate(60, [&] {
    std::vector<double> done(static_cast<size_t>(threads));
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) done[static_cast<size_t>(i)] = body();
    });
    return std::accumulate(done.begin(), done.end(), 0.0);
  });
}

// Adds up `streams` stretches of `length` floats side by side, each `distance` floats from the one before. The
// vectors are as wide as the operations': a core has only so many loads under way, and with 16 bytes each they bring
// two thirds of what they bring with 64.
using Read = float (*)(const float* from, int64_t streams, int64_t distance, int64_t length);
constexpr int64_t step = 64;  // floats; every length is a multiple of it

float read_sse(const float* from, int64_t streams, int64_t distance, int64_t length) {
  __m128 sums[4] = {};
  for (int64_t i = 0; i < length; i += 16)
    for (int64_t s = 0; s < streams; ++s)
      for (int64_t j = 0; j < 4; ++j) sums[j] = _mm_add_ps(sums[j], _mm_load_ps(from + s * distance + i + j * 4));
  return _mm_cvtss_f32(_mm_add_ps(_mm_add_ps(sums[0], sums[1]), _mm_add_ps(sums[2], sums[3])));
}

__attribute__((target("avx2"))) float read_avx2(const float* from, int64_t streams, int64_t distance, int64_t length) {
  __m256 sums[4] = {};
  for (int64_t i = 0; i < length; i += 32)
    for (int64_t s = 0; s < streams; ++s)
      for (int64_t j = 0; j < 4; ++j) sums[j] = _mm256_add_ps(sums[j], _mm256_load_ps(from + s * distance + i + j * 8));
  return _mm256_cvtss_f32(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
}

__attribute__((target("avx512f"))) float read_avx512(const float* from, int64_t streams, int64_t distance,
                                                     int64_t length) {
  __m512 sums[4] = {};
  for (int64_t i = 0; i < length; i += 64)
    for (int64_t s = 0; s < streams; ++s)
      for (int64_t j = 0; j < 4; ++j)
        sums[j] = _mm512_add_ps(sums[j], _mm512_load_ps(from + s * distance + i + j * 16));
  return _mm512_cvtss_f32(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

Read read_body() {
  switch (kernels::active_isa()) {
    case kernels::Isa::baseline: return read_sse;
    case kernels::Isa::avx2: return read_avx2;
    case kernels::Isa::avx512:
    case kernels::Isa::avx512_bf16:
    case kernels::Isa::amx: break;
  }
  return read_avx512;
}

void update(float* at, int64_t streams, int64_t distance, int64_t length) {
  const __m128 term = _mm_set1_ps(1.0f);
  for (int64_t i = 0; i < length; i += 16)
    for (int64_t s = 0; s < streams; ++s)
      for (int64_t j = 0; j < 16; j += 4) {
        float* const p = at + s * distance + i + j;
        _mm_store_ps(p, _mm_add_ps(_mm_load_ps(p), term));
      }
}

// Memory in huge pages where the kernel gives them (Storage), in `streams` stretches of the same length, of which every
// thread takes its share.
class Stretches {
 public:
  explicit Stretches(int64_t bytes)
      : floats_(bytes / 4 / (4 * step) * (4 * step)),
        storage_(Storage::allocate(floats_ * 4, Device{}, MemoryTag::workspace)) {
    std::fill_n(data(), floats_, 1.0f);
  }
  // Passes over all of it a second, the best of a few; body(first, streams, distance, length): a share of the streams,
  // each starting `distance` floats after the one before.
  template <class Body>
  double passes_per_second(int64_t streams, const Body& body) const {
    const int64_t distance = floats_ / streams / step * step;
    return best_rate(7, [&] {
      parallel_for(distance / step, int64_t{1} << 12, [&](int64_t begin, int64_t end) {
        body(data() + begin * step, streams, distance, (end - begin) * step);
      });
      return 1.0;
    });
  }
  double bytes() const { return 4 * static_cast<double>(floats_); }

 private:
  float* data() const { return static_cast<float*>(storage_->data()); }

  int64_t floats_;
  std::shared_ptr<Storage> storage_;
};

constexpr int bandwidth_rounds = 4;  // so that another program's burst falls on some attempts only
constexpr int64_t streams_tried[] = {1, 2, 4};

double reading_rate(const Stretches& memory, int64_t streams) {
  return memory.bytes() * memory.passes_per_second(streams, [read = read_body()](const float* first, auto... rest) {
    sink = read(first, rest...);
  });
}

// Beyond it the last cache keeps nothing.
int64_t beyond_caches() { return 3 * last_cache_bytes(Device{}); }

struct Bandwidth {
  double reading, updating;
};
// The best of one, two and four streams to a thread. Updating in place moves most: on a Zen 4 core, updating two
// streams gave 45 GB/s, copying 17 to 19 with plain stores and 27 to 45 with streaming ones, and reading alone 25.
Bandwidth bandwidth() {
  const Stretches memory(beyond_caches());
  Bandwidth best{};
  for (int round = 0; round < bandwidth_rounds; ++round) {
    for (const int64_t streams : streams_tried) {
      best.reading = std::max(best.reading, reading_rate(memory, streams));
      best.updating = std::max(best.updating, 2 * memory.bytes() * memory.passes_per_second(streams, update));
    }
  }
  return best;
}

}  // namespace

int64_t last_cache_bytes(Device device) {
  if (device.kind != DeviceKind::cpu) return kernels::last_cache_bytes(device);
  const long bytes = std::max(::sysconf(_SC_LEVEL3_CACHE_SIZE), ::sysconf(_SC_LEVEL2_CACHE_SIZE));
  return bytes > 0 ? bytes : int64_t{32} << 20;
}

double measure_peak_flops(DType dtype) {
  using kernels::Isa;
  const Isa isa = kernels::active_isa();
  if (dtype == DType::bf16 && isa == Isa::avx512_bf16) return peak(dot_bf16);
  if (dtype == DType::bf16 && isa == Isa::amx) return peak(multiply_tiles);
  switch (isa) {
    case Isa::baseline: return peak(multiply_add_sse);
    case Isa::avx2: return peak(multiply_add_avx2);
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx: break;
  }
  return peak(multiply_add_avx512);
}

double measure_reading(int64_t bytes) {
  const Stretches memory(std::min(bytes, beyond_caches()));  // a large model leaves no room for as much again
  double best = 0;
  for (int round = 0; round < bandwidth_rounds; ++round)
    for (const int64_t streams : streams_tried) best = std::max(best, reading_rate(memory, streams));
  return best;
}

Ceilings measure_ceilings() {
  Ceilings ceilings;
  ceilings.f32_flops = measure_peak_flops(DType::f32);
  ceilings.bf16_flops =
      kernels::multiplies_bf16(kernels::active_isa()) ? measure_peak_flops(DType::bf16) : ceilings.f32_flops;
  const Bandwidth memory = bandwidth();
  ceilings.reading = memory.reading;
  ceilings.bytes = std::max(memory.reading, memory.updating);
  return ceilings;
}

}  // namespace lathe::bench
