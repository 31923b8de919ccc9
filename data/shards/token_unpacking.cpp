#include "data/shards/token_unpacking.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "data/rows/sft_rows.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lathe::data {
namespace {

template <class Id>
uint32_t unpack_plain(const std::byte* ids, const std::byte* mask, size_t first_bit, size_t count, int32_t* into_ids,
                      int32_t* into_labels) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    Id id = 0;
    std::memcpy(&id, ids + i * sizeof(Id), sizeof(Id));
    largest = std::max<uint32_t>(largest, id);
    const bool learnt = (static_cast<uint32_t>(mask[(first_bit + i) / 8]) >> ((first_bit + i) % 8) & 1) != 0;
    into_ids[i] = static_cast<int32_t>(id);
    into_labels[i] = learnt ? static_cast<int32_t>(id) : ignored_label;
  }
  return largest;
}

#if defined(__x86_64__)

// Bits [bit, bit + 57) of the mask, lowest first, and some more.
inline uint64_t bits_from(const std::byte* mask, size_t bit) {
  uint64_t bits = 0;
  std::memcpy(&bits, mask + bit / 8, sizeof bits);
  return bits >> (bit % 8);
}

template <class Id>
[[gnu::target("avx2")]] inline __m256i widened_8(const std::byte* ids) {
  if constexpr (sizeof(Id) == 2) return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(ids)));
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ids));
}

template <class Id>
[[gnu::target("avx2")]] uint32_t unpack_avx2(const std::byte* ids, const std::byte* mask, size_t first_bit,
                                             size_t count, int32_t* into_ids, int32_t* into_labels) {
  const __m256i ignored = _mm256_set1_epi32(ignored_label);
  const __m256i bit_of_lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i most = _mm256_setzero_si256();
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const uint64_t bits = bits_from(mask, first_bit + i);
    for (size_t j = 0; j < 32; j += 8) {
      const __m256i id = widened_8<Id>(ids + (i + j) * sizeof(Id));
      const __m256i own = _mm256_and_si256(_mm256_set1_epi32(static_cast<int32_t>(bits >> j)), bit_of_lane);
      const __m256i label = _mm256_blendv_epi8(ignored, id, _mm256_cmpeq_epi32(own, bit_of_lane));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(into_ids + i + j), id);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(into_labels + i + j), label);
      most = _mm256_max_epu32(most, id);
    }
  }
  alignas(32) uint32_t of_lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(of_lanes), most);
  const uint32_t largest = *std::max_element(of_lanes, of_lanes + 8);
  return std::max(
      largest, unpack_plain<Id>(ids + i * sizeof(Id), mask, first_bit + i, count - i, into_ids + i, into_labels + i));
}

// The first of 16 ids that `lanes` names, zeros for the others, which are not read.
template <class Id>
[[gnu::target("avx512f,avx512bw,avx512vl")]] inline __m512i widened_16(const std::byte* ids, __mmask16 lanes) {
  if constexpr (sizeof(Id) == 2) return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, ids));
  return _mm512_maskz_loadu_epi32(lanes, ids);
}

// Up to 16 tokens.
template <class Id>
[[gnu::target("avx512f,avx512bw,avx512vl")]] inline __m512i unpack_16(const std::byte* ids, uint64_t bits, size_t count,
                                                                      int32_t* into_ids, int32_t* into_labels) {
  const auto lanes = static_cast<__mmask16>((1U << count) - 1);
  const __m512i id = widened_16<Id>(ids, lanes);
  _mm512_mask_storeu_epi32(into_ids, lanes, id);
  _mm512_mask_storeu_epi32(into_labels, lanes,
                           _mm512_mask_mov_epi32(_mm512_set1_epi32(ignored_label), static_cast<__mmask16>(bits), id));
  return id;
}

template <class Id>
[[gnu::target("avx512f,avx512bw,avx512vl")]] uint32_t unpack_avx512(const std::byte* ids, const std::byte* mask,
                                                                    size_t first_bit, size_t count, int32_t* into_ids,
                                                                    int32_t* into_labels) {
  constexpr __mmask16 all = 0xFFFF;
  const __m512i ignored = _mm512_set1_epi32(ignored_label);
  // Stores that cross lines of the cache cost twice: ids, and labels where they lie alike, begin at a line.
  const size_t before_line = (-reinterpret_cast<uintptr_t>(into_ids) / sizeof(int32_t)) % 16;
  size_t i = std::min(count, before_line);
  __m512i most = unpack_16<Id>(ids, bits_from(mask, first_bit), i, into_ids, into_labels);
  for (; i + 32 <= count; i += 32) {
    const uint64_t bits = bits_from(mask, first_bit + i);
    const __m512i first = widened_16<Id>(ids + i * sizeof(Id), all);
    const __m512i second = widened_16<Id>(ids + (i + 16) * sizeof(Id), all);
    _mm512_storeu_si512(into_ids + i, first);
    _mm512_storeu_si512(into_ids + i + 16, second);
    _mm512_storeu_si512(into_labels + i, _mm512_mask_mov_epi32(ignored, static_cast<__mmask16>(bits), first));
    _mm512_storeu_si512(into_labels + i + 16,
                        _mm512_mask_mov_epi32(ignored, static_cast<__mmask16>(bits >> 16), second));
    most = _mm512_max_epu32(most, _mm512_max_epu32(first, second));
  }
  for (; i < count; i += 16) {
    const size_t left = std::min<size_t>(16, count - i);
    most = _mm512_max_epu32(
        most, unpack_16<Id>(ids + i * sizeof(Id), bits_from(mask, first_bit + i), left, into_ids + i, into_labels + i));
  }
  return _mm512_reduce_max_epu32(most);
}

#endif

// One body for each width of ids.
template <auto U16, auto U32>
uint32_t by_width(StoredId stored, const std::byte* ids, const std::byte* mask, size_t first_bit, size_t count,
                  int32_t* into_ids, int32_t* into_labels) {
  return (stored == StoredId::u16 ? U16 : U32)(ids, mask, first_bit, count, into_ids, into_labels);
}

std::vector<TokenUnpacking> found() {
  std::vector<TokenUnpacking> bodies;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    bodies.push_back({"avx512", by_width<unpack_avx512<uint16_t>, unpack_avx512<uint32_t>>});
  if (__builtin_cpu_supports("avx2"))
    bodies.push_back({"avx2", by_width<unpack_avx2<uint16_t>, unpack_avx2<uint32_t>>});
#endif
  bodies.push_back({"plain", by_width<unpack_plain<uint16_t>, unpack_plain<uint32_t>>});
  return bodies;
}

}  // namespace

std::span<const TokenUnpacking> token_unpackings() {
  static const std::vector<TokenUnpacking> bodies = found();
  return bodies;
}

}  // namespace lathe::data
