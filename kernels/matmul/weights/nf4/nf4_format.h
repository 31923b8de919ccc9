// nf4 (kernels/nf4/nf4.h) as products read it: 4.5 bits for a weight in panels, whether or not its scales were nested.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/matmul/weights/panels.h"
#include "kernels/nf4/nf4.h"
#include "kernels/simd/inline.h"

namespace lathe::kernels {

struct QuantizedProductArgs;

struct Nf4Format {
  // Codes in a group of a panel.
  //
  // Rows q, q + 4, q + 8 and q + 12 of each half of a panel are a quad: they lie together, because a vector has room
  // for the lookup tables of four rows. A quad has 64 bytes for each 32 neighbours along k: 16 for a row, of which 4
  // for each segment of eight neighbours. Pair j of a segment is the j-th half-byte of its two halves of 16 bits.
  static LATHE_INLINE constexpr int64_t code_bytes(int64_t group) { return gemm::panel_width * group / 2; }
  static LATHE_INLINE constexpr int64_t quad_bytes(int64_t group) { return group * 2; }
  struct Place {
    int64_t byte;
    int shift;
  };
  static LATHE_INLINE constexpr Place place(int64_t group, int64_t row, int64_t k) {
    const int64_t quad = row / 16 * 4 + row % 4, row_of_quad = row % 16 / 4;
    const int64_t segment = k % gemm::decode_chunk / 8, pair = k % 8 / 2;
    return {
        quad * quad_bytes(group) + k / gemm::decode_chunk * 64 + row_of_quad * 16 + segment * 4 + k % 2 * 2 + pair / 2,
        static_cast<int>(pair % 2 * 4)};
  }
  // Pairs of bf16 are looked up in tables where the CPU multiplies them (pair_tables.h).
  static constexpr bool has_pair_tables = true;
  // Into bytes that were zero.
  static void put(uint8_t* codes, int64_t group, int64_t row, int64_t k, uint8_t code);
  // What the code stands for, before the scale.
  static float value(const uint8_t* codes, int64_t group, int64_t row, int64_t k);

  // As it is stored.
  using Stored = Nf4Weight;
  static void check(const char* operation, const Nf4Weight& weight) { check_nf4(operation, weight); }
  static int64_t rows(const Nf4Weight& weight) { return weight.rows; }
  static int64_t columns(const Nf4Weight& weight) { return weight.columns; }
  static int64_t block_size(const Nf4Weight& weight) { return weight.block_size; }
  static DType scale_dtype(const Nf4Weight& weight) {
    return weight.nested() ? weight.nested_absmax.dtype() : weight.absmax.dtype();
  }
  static Nf4Weight quantize(const Tensor& values, MemoryTag tag) {
    return quantize_nf4(values, 64, Nf4Scales::nested, tag);
  }
  static void dequantize(const Tensor& out, const Nf4Weight& weight, int64_t first_row) {
    nf4_dequantize(out, weight, first_row);
  }
  // The codes and scales of a weight on a device.
  static void set_codes(QuantizedProductArgs& args, const Nf4Weight& weight);

  // Reads a weight on the CPU.
  class Reader {
   public:
    explicit Reader(const Nf4Weight& weight);
    uint8_t code(int64_t row, int64_t k) const {
      const int64_t i = row * columns_ + k;
      return static_cast<uint8_t>(i % 2 == 0 ? codes_[i / 2] >> 4 : codes_[i / 2] & 15);
    }
    float scale(int64_t row, int64_t k) const {
      return scales_[static_cast<size_t>((row * columns_ + k) / block_size_)];
    }

   private:
    const uint8_t* codes_;
    int64_t columns_, block_size_;
    std::vector<float> scales_;
  };
};

}  // namespace lathe::kernels
