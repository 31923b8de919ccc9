// How GGUF numbers the types of metadata's values.
#pragma once

#include <cstdint>

namespace lathe::nn::gguf {

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

}  // namespace lathe::nn::gguf
