// 8-bit blocks (kernels/int8_blocks/int8_blocks.h) as products read them: 8.5 bits for a weight.
#pragma once

#include <cstdint>

#include "kernels/int8_blocks/int8_blocks.h"
#include "kernels/matmul/weights/panels.h"
#include "kernels/simd/inline.h"

namespace lathe::kernels {

struct QuantizedProductArgs;

struct Int8Format {
  // Codes in a group of a panel.
  //
  // Two neighbours along k of each of the panel's rows, then the next two.
  static LATHE_INLINE constexpr int64_t code_bytes(int64_t group) { return gemm::panel_width * group; }
  static LATHE_INLINE constexpr int64_t place(int64_t row, int64_t k) {
    return (k / 2 * gemm::panel_width + row) * 2 + k % 2;
  }
  static constexpr bool has_pair_tables = false;
  static void put(uint8_t* codes, int64_t, int64_t row, int64_t k, uint8_t code) { codes[place(row, k)] = code; }
  // What the code stands for, before the scale.
  static float value(const uint8_t* codes, int64_t, int64_t row, int64_t k) {
    return static_cast<float>(static_cast<int8_t>(codes[place(row, k)]));
  }

  // As it is stored.
  using Stored = Int8Weight;
  static void check(const char* operation, const Int8Weight& weight) { check_int8(operation, weight); }
  static int64_t rows(const Int8Weight& weight) { return weight.rows(); }
  static int64_t columns(const Int8Weight& weight) { return weight.columns(); }
  static int64_t block_size(const Int8Weight&) { return int8_block; }
  static DType scale_dtype(const Int8Weight& weight) { return weight.scales.dtype(); }
  static Int8Weight quantize(const Tensor& values, MemoryTag tag) { return quantize_int8(values, tag); }
  static void dequantize(const Tensor& out, const Int8Weight& weight, int64_t first_row) {
    int8_dequantize(out, weight, first_row);
  }
  // The codes and scales of a weight on a device.
  static void set_codes(QuantizedProductArgs& args, const Int8Weight& weight);

  // Reads a weight on the CPU.
  class Reader {
   public:
    explicit Reader(const Int8Weight& weight)
        : codes_(static_cast<const uint8_t*>(weight.codes.raw())),
          scales_(weight.scales.data<float>()),
          columns_(weight.columns()),
          blocks_(weight.scales.dim(1)) {}
    uint8_t code(int64_t row, int64_t k) const { return codes_[row * columns_ + k]; }
    float scale(int64_t row, int64_t k) const { return scales_[row * blocks_ + k / int8_block]; }

   private:
    const uint8_t* codes_;
    const float* scales_;
    int64_t columns_, blocks_;
  };
};

}  // namespace lathe::kernels
