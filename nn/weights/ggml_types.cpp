#include "nn/weights/ggml_types.h"

#include <cstring>

#include "core/dtype.h"

namespace lathe::nn {
namespace {

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

// The eight 6-bit scales and minima that Q4_K and Q5_K pack into 12 bytes.
void unpack_k_scale(const std::byte* s, int j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = byte_at(s, j) & 63;
    *minimum = byte_at(s, j + 4) & 63;
  } else {
    *scale = (byte_at(s, j + 4) & 15) | ((byte_at(s, j - 4) >> 6) << 4);
    *minimum = (byte_at(s, j + 4) >> 4) | ((byte_at(s, j) >> 6) << 4);
  }
}

// Q4_K: f16 d, dmin; scales[12]; qs[128]; d·sc·q − dmin·mn. Each 64 elements share 32 bytes: low nibbles, then high.
void dequantize_q4_k(const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 144, out += 256) {
    const float d = read_f16(in), dmin = read_f16(in + 2);
    for (int group = 0; group < 8; ++group) {
      int scale, minimum;
      unpack_k_scale(in + 4, group, &scale, &minimum);
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
      int scale, minimum;
      unpack_k_scale(in + 4, group, &scale, &minimum);
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

constexpr GgmlType all_types[] = {
    {0, "F32", 1, 4, dequantize_f32},       {1, "F16", 1, 2, dequantize_f16},
    {2, "Q4_0", 32, 18, dequantize_q4_0},   {3, "Q4_1", 32, 20, dequantize_q4_1},
    {6, "Q5_0", 32, 22, dequantize_q5_0},   {7, "Q5_1", 32, 24, dequantize_q5_1},
    {8, "Q8_0", 32, 34, dequantize_q8_0},   {12, "Q4_K", 256, 144, dequantize_q4_k},
    {13, "Q5_K", 256, 176, dequantize_q5_k}, {14, "Q6_K", 256, 210, dequantize_q6_k},
    {30, "BF16", 1, 2, dequantize_bf16},
    // Known, so that `info` can name them and sizes can be checked; no reader yet.
    {10, "Q2_K", 256, 84, nullptr},         {11, "Q3_K", 256, 110, nullptr},
    {20, "IQ4_NL", 32, 18, nullptr},
};

}  // namespace

const GgmlType* ggml_type(uint32_t id) {
  for (const GgmlType& type : all_types)
    if (type.id == id) return &type;
  return nullptr;
}

}  // namespace lathe::nn
