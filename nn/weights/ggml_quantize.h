// f32 values to the block formats of ggml, rounded as ggml's reference (and the gguf package) rounds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lathe::nn {

struct GgmlWriter {
  uint32_t id;            // of nn/weights/ggml_types.h
  std::string_view name;  // "Q8_0"
  uint32_t file_type;     // general.file_type of a file that is mostly this
  void (*quantize)(const float* in, int64_t blocks, std::byte* out);
};

// By its name, upper or lower case: F32, F16, BF16, Q8_0, Q4_0, Q4_1. nullptr for any other.
const GgmlWriter* ggml_writer(std::string_view name);
// "F32, F16, …"
std::string_view ggml_writer_names();

}  // namespace lathe::nn
