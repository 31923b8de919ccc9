#include "nn/weights/ggml_quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/dtype.h"

namespace lathe::nn {
namespace {

void quantize_f32(const float* in, int64_t blocks, std::byte* out) {
  std::memcpy(out, in, static_cast<size_t>(blocks) * sizeof(float));
}

template <class T>
void quantize_16(const float* in, int64_t blocks, std::byte* out) {
  for (int64_t i = 0; i < blocks; ++i) {
    const T value(in[i]);
    std::memcpy(out + 2 * i, &value.bits, 2);
  }
}

void put_f16(std::byte* out, float value) {
  const f16 half(value);
  std::memcpy(out, &half.bits, 2);
}

// Codes are made with the inverse of the scale before it is rounded to f16; zero for a block of zeros.
float inverse(float d) { return d != 0 ? 1.0f / d : 0.0f; }

// d = amax / 127; q = x / d, ties away from zero.
void quantize_q8_0(const float* in, int64_t blocks, std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 32, out += 34) {
    float largest = 0;
    for (int j = 0; j < 32; ++j) largest = std::max(largest, std::fabs(in[j]));
    const float d = largest / 127.0f, id = inverse(d);
    put_f16(out, d);
    for (int j = 0; j < 32; ++j) out[2 + j] = static_cast<std::byte>(static_cast<int8_t>(std::round(in[j] * id)));
  }
}

// Two codes of four bits in a byte: elements j and j + 16.
template <class Code>
void put_nibbles(const float* in, std::byte* out, Code code) {
  for (int j = 0; j < 16; ++j) out[j] = static_cast<std::byte>(code(in[j]) | (code(in[j + 16]) << 4));
}

// d is the value of largest magnitude, the first of equals, over −8: that one is −8·d exactly.
void quantize_q4_0(const float* in, int64_t blocks, std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 32, out += 18) {
    float largest = 0;
    for (int j = 0; j < 32; ++j)
      if (std::fabs(in[j]) > std::fabs(largest)) largest = in[j];
    const float d = largest / -8.0f, id = inverse(d);
    put_f16(out, d);
    put_nibbles(in, out + 2,
                [&](float x) { return std::min(15, static_cast<int>(static_cast<int8_t>(x * id + 8.5f))); });
  }
}

// d = (max − min) / 15, m = min.
void quantize_q4_1(const float* in, int64_t blocks, std::byte* out) {
  for (int64_t b = 0; b < blocks; ++b, in += 32, out += 20) {
    const auto [least, most] = std::minmax_element(in, in + 32);
    const float minimum = *least, d = (*most - minimum) / 15.0f, id = inverse(d);
    put_f16(out, d);
    put_f16(out + 2, minimum);
    put_nibbles(in, out + 4, [&](float x) {
      return std::min(15, static_cast<int>(static_cast<int8_t>((x - minimum) * id + 0.5f)));
    });
  }
}

constexpr GgmlWriter writers[] = {
    {0, "F32", 0, quantize_f32},   {1, "F16", 1, quantize_16<f16>}, {30, "BF16", 32, quantize_16<bf16>},
    {8, "Q8_0", 7, quantize_q8_0}, {2, "Q4_0", 2, quantize_q4_0},   {3, "Q4_1", 3, quantize_q4_1},
};

}  // namespace

const GgmlWriter* ggml_writer(std::string_view name) {
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
  for (const GgmlWriter& writer : writers)
    if (writer.name == upper) return &writer;
  return nullptr;
}

std::string_view ggml_writer_names() { return "f32, f16, bf16, q8_0, q4_0, q4_1"; }

}  // namespace lathe::nn
