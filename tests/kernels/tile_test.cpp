// The tile vocabulary of CUDA kernels (kernels/cuda/tile/): what it counts as bank conflicts, that the swizzle is the
// hardware's, and that a wrong pairing of tiles and fragments does not compile. All of it is decided when this file is
// compiled.
#include <gtest/gtest.h>

#include "kernels/cuda/tile/fragment.cuh"

namespace lathe::kernels::LATHE_CUDA_NAMESPACE {
namespace {

// ---- bank conflicts ----

constexpr int same_word(int) { return 0; }
constexpr int neighbours(int lane) { return 16 * lane; }
constexpr int one_bank(int lane) { return 128 * lane; }
static_assert(bank_passes(16, same_word) == 1);
static_assert(bank_passes(16, neighbours) == 1);
static_assert(bank_passes(16, one_bank) == 8);
static_assert(bank_passes(4, one_bank) == 32);
static_assert(bank_passes(8, [](int lane) { return 8 * (lane / 2 * 2); }) == 1);
static_assert(bank_passes(8, [](int lane) { return 16 * lane; }) == 2);

// Eight rows of 128 bytes have each of their vectors in one bank group, unless places change or rows are padded.
template <class Tile>
constexpr bool both_ways_conflict_free =
    ldmatrix_conflict_free<Tile>(16, 16, [](int lane) { return a_place<Tile, Major::k>(lane, 0); }) &&
    ldmatrix_conflict_free<Tile>(16, 16, [](int lane) { return a_place<Tile, Major::mn>(lane, 0); });
using Plain = SharedTile<bf16_t, 64, 64, Padded<0>>;
static_assert(!both_ways_conflict_free<Plain>);
static_assert(bank_passes(16, [](int lane) { return Plain::offset(lane % 16, lane / 16 * 8) * 2; }) == 8);
static_assert(both_ways_conflict_free<SwizzledTile<bf16_t, 64, 64>> &&
              row_order_passes<SwizzledTile<bf16_t, 64, 64>> == 1);
static_assert(both_ways_conflict_free<SwizzledTile<bf16_t, 64, 32>> &&
              row_order_passes<SwizzledTile<bf16_t, 64, 32>> == 1);
static_assert(both_ways_conflict_free<SwizzledTile<bf16_t, 64, 256>>);
static_assert(both_ways_conflict_free<PaddedTile<bf16_t, 64, 64>> && row_order_passes<PaddedTile<bf16_t, 64, 64>> == 1);
static_assert(both_ways_conflict_free<PaddedTile<bf16_t, 64, 96>> && row_order_passes<PaddedTile<bf16_t, 64, 96>> == 2);

// ---- the hardware's swizzle: in rows of 128 bytes address bits 4 to 6 are changed by bits 7 to 9, of 64 bytes 4 and 5
// by 7 and 8 ----

template <class Tile>
constexpr bool is_hardware_swizzle(int bits) {
  for (int row = 0; row < Tile::rows; ++row)
    for (int column = 0; column < Tile::columns; ++column) {
      const int plain = (row * Tile::columns + column) * 2;
      if (Tile::offset(row, column) * 2 != (plain ^ ((plain >> 7 & bits) << 4))) return false;
    }
  return true;
}
static_assert(is_hardware_swizzle<SwizzledTile<bf16_t, 64, 64>>(7));
static_assert(is_hardware_swizzle<SwizzledTile<bf16_t, 64, 32>>(3));

// ---- pairings ----

template <class A, class B>
concept Multiplies = requires(float (&c)[4], const A& a, const B& b) {
  mma(c, a, b);
};
static_assert(Multiplies<AFragment<bf16_t>, BFragment<bf16_t>> && Multiplies<AFragment<f16_t>, BFragment<f16_t>>);
static_assert(!Multiplies<AFragment<bf16_t>, BFragment<f16_t>>);
static_assert(!Multiplies<BFragment<bf16_t>, AFragment<bf16_t>>);
static_assert(!Multiplies<AFragment<bf16_t>, AFragment<bf16_t>>);
static_assert(!Multiplies<AFragment<float>, BFragment<float>>);

template <class Reader, class Fragment, class Tile>
concept Loads = requires(const Reader& reader, Fragment& fragment, const Tile& tile) {
  reader.load(fragment, tile, 0, 0);
};
using Tile = SwizzledTile<bf16_t, 64, 64>;
static_assert(Loads<AReader<Tile, Major::k>, AFragment<bf16_t>, Tile>);
static_assert(!Loads<AReader<Tile, Major::k>, BFragment<bf16_t>, Tile>);
static_assert(!Loads<AReader<Tile, Major::k>, AFragment<f16_t>, Tile>);
static_assert(!Loads<AReader<Tile, Major::k>, AFragment<bf16_t>, SwizzledTile<f16_t, 64, 64>>);
static_assert(!Loads<AReader<Tile, Major::k>, AFragment<bf16_t>, PaddedTile<bf16_t, 64, 64>>);
static_assert(!Loads<AReader<Tile, Major::k>, AFragment<bf16_t>, SwizzledTile<bf16_t, 64, 32>>);

TEST(Tile, KeepsItsPromisesWhenCompiled) { SUCCEED(); }

}  // namespace
}  // namespace lathe::kernels::LATHE_CUDA_NAMESPACE
