// The block formats of ggml that GGUF files hold, and their dequantisation to f32 (facts: each type's block layout
// stands beside its function in ggml_types.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lathe::nn {

struct GgmlType {
  uint32_t id;
  std::string_view name;   // "Q4_1"
  int64_t block_elements;  // 1 for plain types
  int64_t block_bytes;
  // out receives `blocks · block_elements` values; nullptr where the type is known but cannot be read yet.
  void (*dequantize)(const std::byte* in, int64_t blocks, float* out);
};

// nullptr for an unknown id.
const GgmlType* ggml_type(uint32_t id);

}  // namespace lathe::nn
