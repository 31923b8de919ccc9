#include "nn/weights/ggml_types.h"

#include <cmath>
#include <cstring>

#include "core/dtype.h"
#include "kernels/matmul/weights/ggml/file_blocks.h"
#include "kernels/matmul/weights/ggml/ggml_formats.h"
#include "kernels/matmul/weights/ggml/grid_of.h"

namespace lathe::nn {
namespace {

using kernels::ggml::fp4_values_doubled, kernels::ggml::iq4_values;

float read_f16(const std::byte* p) {
  f16 value;
  std::memcpy(&value.bits, p, 2);
  return static_cast<float>(value);
}

uint32_t read_u32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return value;
}

int byte_at(const std::byte* p, int64_t i) { return static_cast<int>(p[i]); }
int signed_byte_at(const std::byte* p, int64_t i) { return static_cast<int8_t>(p[i]); }

void dequantize_f32(const std::byte* in, int64_t blocks, float* out) {
  std::memcpy(out, in, static_cast<size_t>(blocks) * sizeof(float));
}

void dequantize_f16(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t i = 0; i < blocks; ++i) out[i] = read_f16(in + 2 * i);
}

void dequantize_bf16(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t i = 0; i < blocks; ++i) {
    bf16 value;
    std::memcpy(&value.bits, in + 2 * i, 2);
    out[i] = static_cast<float>(value);
  }
}

// Blocks of 32 with 4-bit quants: the low nibbles are elements 0…15, the high ones 16…31.
// Q4_0: f16 d; qs[16]; (q − 8)·d
void dequantize_q4_0(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 18, out += 32) {
    const float d = read_f16(in);
    for (int j = 0; j < 16; ++j) {
      const int q = byte_at(in + 2, j);
      out[j] = static_cast<float>((q & 15) - 8) * d;
      out[j + 16] = static_cast<float>((q >> 4) - 8) * d;
    }
  }
}

// Q4_1: f16 d, m; qs[16]; q·d + m
void dequantize_q4_1(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 20, out += 32) {
    const float d = read_f16(in), m = read_f16(in + 2);
    for (int j = 0; j < 16; ++j) {
      const int q = byte_at(in + 4, j);
      out[j] = static_cast<float>(q & 15) * d + m;
      out[j + 16] = static_cast<float>(q >> 4) * d + m;
    }
  }
}

// The fifth bit of element j is bit j of qh.
int fifth_bit(uint32_t high, int j) { return static_cast<int>((high >> j) & 1u) << 4; }

// Q5_0: f16 d; qh[4]; qs[16]; (q − 16)·d
void dequantize_q5_0(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 22, out += 32) {
    const float d = read_f16(in);
    const uint32_t high = read_u32(in + 2);
    for (int j = 0; j < 16; ++j) {
      const int q = byte_at(in + 6, j);
      out[j] = static_cast<float>(((q & 15) | fifth_bit(high, j)) - 16) * d;
      out[j + 16] = static_cast<float>(((q >> 4) | fifth_bit(high, j + 16)) - 16) * d;
    }
  }
}

// Q5_1: f16 d, m; qh[4]; qs[16]; q·d + m
void dequantize_q5_1(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 24, out += 32) {
    const float d = read_f16(in), m = read_f16(in + 2);
    const uint32_t high = read_u32(in + 4);
    for (int j = 0; j < 16; ++j) {
      const int q = byte_at(in + 8, j);
      out[j] = static_cast<float>((q & 15) | fifth_bit(high, j)) * d + m;
      out[j + 16] = static_cast<float>((q >> 4) | fifth_bit(high, j + 16)) * d + m;
    }
  }
}

// Q8_0: f16 d; i8[32]; q·d
void dequantize_q8_0(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 34, out += 32) {
    const float d = read_f16(in);
    for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(signed_byte_at(in + 2, j)) * d;
  }
}

// Q4_K: f16 d, dmin; scales[12]; qs[128]; d·sc·q − dmin·mn. Each 64 elements share 32 bytes: low nibbles, then high.
void dequantize_q4_k(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 144, out += 256) {
    const float d = read_f16(in), dmin = read_f16(in + 2);
    for (int group = 0; group < 8; ++group) {
      const auto [scale, minimum] = kernels::ggml::k_scale(in + 4, group);
      const float step = d * static_cast<float>(scale), offset = dmin * static_cast<float>(minimum);
      const std::byte* qs = in + 16 + 32 * (group / 2);
      for (int j = 0; j < 32; ++j) {
        const int q = group % 2 == 0 ? byte_at(qs, j) & 15 : byte_at(qs, j) >> 4;
        out[32 * group + j] = step * static_cast<float>(q) - offset;
      }
    }
  }
}

// Q5_K: as Q4_K with qh[32] before qs: the fifth bit of group g's element j is bit g of qh[j].
void dequantize_q5_k(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 176, out += 256) {
    const float d = read_f16(in), dmin = read_f16(in + 2);
    for (int group = 0; group < 8; ++group) {
      const auto [scale, minimum] = kernels::ggml::k_scale(in + 4, group);
      const float step = d * static_cast<float>(scale), offset = dmin * static_cast<float>(minimum);
      const std::byte* qs = in + 48 + 32 * (group / 2);
      for (int j = 0; j < 32; ++j) {
        const int low = group % 2 == 0 ? byte_at(qs, j) & 15 : byte_at(qs, j) >> 4;
        const int q = low | (((byte_at(in + 16, j) >> group) & 1) << 4);
        out[32 * group + j] = step * static_cast<float>(q) - offset;
      }
    }
  }
}

// Q6_K: ql[128]; qh[64]; i8 scales[16]; f16 d; d·sc·(q − 32), in two halves of 128 elements.
void dequantize_q6_k(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 210, out += 256) {
    const float d = read_f16(in + 208);
    for (int half = 0; half < 2; ++half) {
      const std::byte* ql = in + 64 * half;
      const std::byte* qh = in + 128 + 32 * half;
      const std::byte* scales = in + 192 + 8 * half;
      for (int j = 0; j < 128; ++j) {
        const int low = j < 64 ? byte_at(ql, j) & 15 : byte_at(ql, j - 64) >> 4;
        const int high = (byte_at(qh, j % 32) >> (2 * (j / 32))) & 3;
        const float step = d * static_cast<float>(signed_byte_at(scales, j / 16));
        out[128 * half + j] = step * static_cast<float>((low | (high << 4)) - 32);
      }
    }
  }
}

// Q2_K: scales[16] (a scale in the low nibble, a minimum in the high one, for 16 elements); qs[64]; f16 d, dmin; d·sc·q
// − dmin·mn. Each half of 128 elements has 32 bytes of qs: element 32 j + i takes bits 2 j and 2 j + 1 of byte i.
void dequantize_q2_k(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 84, out += 256) {
    const float d = read_f16(in + 80), dmin = read_f16(in + 82);
    for (int e = 0; e < 256; ++e) {
      const int both = byte_at(in, e / 16);
      const int q = (byte_at(in + 16, e / 128 * 32 + e % 32) >> (2 * (e % 128 / 32))) & 3;
      out[e] = d * static_cast<float>(both & 15) * static_cast<float>(q) - dmin * static_cast<float>(both >> 4);
    }
  }
}

// Q3_K: hmask[32]; qs[64]; scales[12]; f16 d; d·(sc − 32)·(q − 4), the two low bits of q as Q2_K's, the third of
// element 32 j + i bit j of hmask[i].
void dequantize_q3_k(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 110, out += 256) {
    const float d = read_f16(in + 108);
    for (int e = 0; e < 256; ++e) {
      const int8_t scale = kernels::ggml::q3_k_scale(in, e / 16);
      const int bits = (byte_at(in + 32, e / 128 * 32 + e % 32) >> (2 * (e % 128 / 32))) & 3;
      const int q = (bits | (((byte_at(in, e % 32) >> (e / 32)) & 1) << 2)) - 4;
      out[e] = d * static_cast<float>(scale) * static_cast<float>(q);
    }
  }
}

// IQ4_NL: f16 d; qs[16]; d·value(q), laid out as Q4_0.
void dequantize_iq4_nl(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 18, out += 32) {
    const float d = read_f16(in);
    for (int j = 0; j < 16; ++j) {
      const int q = byte_at(in + 2, j);
      out[j] = d * static_cast<float>(iq4_values[q & 15]);
      out[j + 16] = d * static_cast<float>(iq4_values[q >> 4]);
    }
  }
}

// IQ4_XS: f16 d; u16 of the scales' two high bits; 4 bytes of their four low bits; qs[128]; d·(sc − 32)·value(q) for 32
// elements each.
void dequantize_iq4_xs(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 136, out += 256) {
    const float d = read_f16(in);
    for (int group = 0; group < 8; ++group) {
      const float step = d * static_cast<float>(kernels::ggml::iq4_xs_scale(in, group));
      for (int j = 0; j < 16; ++j) {
        const int q = byte_at(in + 8 + 16 * group, j);
        out[32 * group + j] = step * static_cast<float>(iq4_values[q & 15]);
        out[32 * group + j + 16] = step * static_cast<float>(iq4_values[q >> 4]);
      }
    }
  }
}

// MXFP4 (Open Compute's microscaling formats): u8 e, qs[16]; 2^(e − 127) times a float of 4 bits, laid out as Q4_0. The
// table holds the floats doubled, so that they are whole, and the scale is halved.
void dequantize_mxfp4(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 17, out += 32) {
    const float half_scale = std::ldexp(1.0f, byte_at(in, 0) - 128);  // the two smallest are subnormal
    for (int j = 0; j < 16; ++j) {
      const int q = byte_at(in + 1, j);
      out[j] = half_scale * static_cast<float>(fp4_values_doubled[q & 15]);
      out[j + 16] = half_scale * static_cast<float>(fp4_values_doubled[q >> 4]);
    }
  }
}

// IQ1, IQ2, IQ3 (kernels/matmul/weights/ggml/file_blocks.h): d·unit·(2·sc + 1) times a value of the grid with a sign,
// or, of IQ1, with its delta.
template <class Format>
void dequantize_grid(const std::byte* in, int64_t blocks, float* out) {
  constexpr const auto& grid = kernels::ggml::grid_of<Format>();
  for (int64_t b = 0; b < blocks; ++b, in += Format::file_bytes) {
    f16 d;
    d.bits = kernels::ggml::grid_factor<Format>(in);
    for (int64_t j = 0; j < 8; ++j, out += 32) {
      const auto [indices, signs, scales] = kernels::ggml::grid_block<Format>(in, j);
      for (int k = 0; k < 32; ++k) {
        const int value = grid.value(indices[k / grid.neighbours], k % grid.neighbours);
        const bool sign = (signs >> k & 1u) != 0;
        const int code = kernels::ggml::HasDeltas<Format> ? value + (sign ? -1 : 1) : sign ? -value : value;
        const int scale = scales[k / 16];
        const float step = static_cast<float>(d) * Format::unit * static_cast<float>(2 * scale + 1);
        out[k] = step * static_cast<float>(code);
      }
    }
  }
}

constexpr GgmlType all_types[] = {
    {0, "F32", 1, 4, dequantize_f32},
    {1, "F16", 1, 2, dequantize_f16},
    {2, "Q4_0", 32, 18, dequantize_q4_0},
    {3, "Q4_1", 32, 20, dequantize_q4_1},
    {6, "Q5_0", 32, 22, dequantize_q5_0},
    {7, "Q5_1", 32, 24, dequantize_q5_1},
    {8, "Q8_0", 32, 34, dequantize_q8_0},
    {12, "Q4_K", 256, 144, dequantize_q4_k},
    {13, "Q5_K", 256, 176, dequantize_q5_k},
    {14, "Q6_K", 256, 210, dequantize_q6_k},
    {30, "BF16", 1, 2, dequantize_bf16},
    {10, "Q2_K", 256, 84, dequantize_q2_k},
    {11, "Q3_K", 256, 110, dequantize_q3_k},
    {20, "IQ4_NL", 32, 18, dequantize_iq4_nl},
    {23, "IQ4_XS", 256, 136, dequantize_iq4_xs},
    {39, "MXFP4", 32, 17, dequantize_mxfp4},
    {16, "IQ2_XXS", 256, 66, dequantize_grid<kernels::ggml::IQ2_XXS>},
    {17, "IQ2_XS", 256, 74, dequantize_grid<kernels::ggml::IQ2_XS>},
    {18, "IQ3_XXS", 256, 98, dequantize_grid<kernels::ggml::IQ3_XXS>},
    {19, "IQ1_S", 256, 50, dequantize_grid<kernels::ggml::IQ1_S>},
    {21, "IQ3_S", 256, 110, dequantize_grid<kernels::ggml::IQ3_S>},
    {22, "IQ2_S", 256, 82, dequantize_grid<kernels::ggml::IQ2_S>},
    {29, "IQ1_M", 256, 56, dequantize_grid<kernels::ggml::IQ1_M>},
    // Known, so that `info` can name them and sizes can be checked; no reader yet.
    {34, "TQ1_0", 256, 54, nullptr},
    {35, "TQ2_0", 256, 66, nullptr},
};

}  // namespace

const GgmlType* ggml_type(uint32_t id) {
  for (const GgmlType& type : all_types)
    if (type.id == id) return &type;
  return nullptr;
}

}  // namespace lathe::nn
