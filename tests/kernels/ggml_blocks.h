// Weights in random blocks of a GGUF file's formats, and what products with them are compared by.
#pragma once

#include <cstddef>
#include <cstring>
#include <iterator>
#include <vector>

#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/upload.h"
#include "kernels/matmul/weights/ggml/ggml_weight.h"
#include "kernels/simd/isa.h"

namespace lathe::testing {

using kernels::GgmlFormat;
using kernels::GgmlWeight;
using kernels::Isa;

inline constexpr Isa all_sets[] = {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};
inline constexpr GgmlFormat all_formats[] = {
    GgmlFormat::q4_0,   GgmlFormat::q4_1,    GgmlFormat::q5_0,  GgmlFormat::q5_1,    GgmlFormat::q8_0,
    GgmlFormat::q4_k,   GgmlFormat::q5_k,    GgmlFormat::q6_k,  GgmlFormat::q2_k,    GgmlFormat::q3_k,
    GgmlFormat::iq4_nl, GgmlFormat::iq4_xs,  GgmlFormat::mxfp4, GgmlFormat::iq2_xxs, GgmlFormat::iq2_xs,
    GgmlFormat::iq2_s,  GgmlFormat::iq3_xxs, GgmlFormat::iq3_s, GgmlFormat::iq1_s,   GgmlFormat::iq1_m};

inline Tensor random_matrix(int64_t rows, int64_t columns, DType dtype, uint64_t seed) {
  const Tensor values = Tensor::empty({rows, columns}, DType::f32);
  RandomStream random(seed, RandomPurpose::test);
  for (float& v : values.span<float>()) v = random.normal();
  return kernels::cast(values, dtype);
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.nbytes())) == 0;
}

// Blocks of random bytes whose f16 scales are numbers between 2^-7 and 2^-6, and MXFP4's from 2^-9 to 2^-6.
struct RandomBlocks {
  std::vector<std::byte> bytes;
  std::vector<const std::byte*> rows;
  GgmlWeight weight;

  RandomBlocks(GgmlFormat format, int64_t count, int64_t columns, DType dtype, uint64_t seed) {
    const auto [elements, block_bytes, scales] = layout(format);
    const int64_t row_bytes = columns / elements * block_bytes;
    bytes.resize(static_cast<size_t>(count * row_bytes));
    RandomStream random(seed, RandomPurpose::test);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.below(256));
    for (int64_t block = 0; block < count * columns / elements; ++block)
      for (const int64_t at : scales) {
        const auto bits = static_cast<uint16_t>(0x2000u | random.below(1024));
        std::memcpy(bytes.data() + block * block_bytes + at, &bits, 2);
      }
    for (int64_t block = 0; format == GgmlFormat::mxfp4 && block < count * columns / elements; ++block)
      bytes[static_cast<size_t>(block * block_bytes)] = static_cast<std::byte>(119 + random.below(4));
    for (int64_t block = 0; format == GgmlFormat::iq1_m && block < count * columns / elements; ++block) {
      std::byte* const scale = bytes.data() + block * block_bytes + 49;  // its four bits, and of each second byte
      scale[4] &= std::byte{0x3f}, scale[6] = (scale[6] & std::byte{0x0f}) | std::byte{0x20};
    }
    for (int64_t i = 0; i < count; ++i) rows.push_back(bytes.data() + i * row_bytes);
    weight = GgmlWeight::pack({format, columns, rows}, dtype);
  }

  GgmlWeight on(Device device) const {
    kernels::Upload upload(device);
    const GgmlWeight sent = GgmlWeight::send({weight.format(), weight.columns(), rows}, weight.dtype(), device, upload);
    upload.publish();
    return sent;
  }

  // The scales of 16 bits, and MXFP4's, as they are, all other bytes `value`.
  void fill(std::byte value) {
    const auto [elements, block_bytes, scales] = layout(weight.format());
    for (int64_t i = 0; i < std::ssize(bytes); ++i) {
      bool of_scale = weight.format() == GgmlFormat::mxfp4 && i % block_bytes == 0;
      for (const int64_t at : scales) of_scale = of_scale || i % block_bytes - at == 0 || i % block_bytes - at == 1;
      std::byte& byte = bytes[static_cast<size_t>(i)];
      const bool half_of_scale = weight.format() == GgmlFormat::iq1_m && i % block_bytes > 48 && i % 2 == 1;
      if (!of_scale) byte = half_of_scale ? (byte & std::byte{0xf0}) | (value & std::byte{0x0f}) : value;
    }
    weight = GgmlWeight::pack({weight.format(), weight.columns(), rows}, weight.dtype());
  }

  struct Layout {
    int64_t elements, bytes;
    std::vector<int64_t> f16s;  // where a block has its scales
  };
  static Layout layout(GgmlFormat format) {
    switch (format) {
      case GgmlFormat::q4_0: return {32, 18, {0}};
      case GgmlFormat::q4_1: return {32, 20, {0, 2}};
      case GgmlFormat::q5_0: return {32, 22, {0}};
      case GgmlFormat::q5_1: return {32, 24, {0, 2}};
      case GgmlFormat::q8_0: return {32, 34, {0}};
      case GgmlFormat::q4_k: return {256, 144, {0, 2}};
      case GgmlFormat::q5_k: return {256, 176, {0, 2}};
      case GgmlFormat::q6_k: return {256, 210, {208}};
      case GgmlFormat::q2_k: return {256, 84, {80, 82}};
      case GgmlFormat::q3_k: return {256, 110, {108}};
      case GgmlFormat::iq4_nl: return {32, 18, {0}};
      case GgmlFormat::iq4_xs: return {256, 136, {0}};
      case GgmlFormat::mxfp4: return {32, 17, {}};
      case GgmlFormat::iq2_xxs: return {256, 66, {0}};
      case GgmlFormat::iq2_xs: return {256, 74, {0}};
      case GgmlFormat::iq2_s: return {256, 82, {0}};
      case GgmlFormat::iq3_xxs: return {256, 98, {0}};
      case GgmlFormat::iq3_s: return {256, 110, {0}};
      case GgmlFormat::iq1_s: return {256, 50, {0}};
      case GgmlFormat::iq1_m: return {256, 56, {}};
    }
    return {};
  }

  // Bytes that 256 neighbours take more than in the file: numbers of 6 bits become bytes, IQ1_M's scale is apart.
  static int64_t unpacked_scales(GgmlFormat format) {
    switch (format) {
      case GgmlFormat::q4_k:
      case GgmlFormat::q5_k:
      case GgmlFormat::q3_k: return 4;
      case GgmlFormat::iq4_xs:
      case GgmlFormat::iq1_m: return 2;
      default: return 0;
    }
  }
};

class ActiveIsa {
 public:
  explicit ActiveIsa(Isa isa) { kernels::set_active_isa(isa); }
  ~ActiveIsa() { kernels::set_active_isa(before_); }

 private:
  Isa before_ = kernels::active_isa();
};

}  // namespace lathe::testing
