// The cases of copy and fill. What is exact about them is in copy_test.cpp.
#pragma once

#include "kernels/copy/copy.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace copy_cases {

// `turned` copies the transpose of `in`, whose rows then are columns of the batch.
inline Case copy(std::string name, int64_t rows, int64_t columns, DType out, DType in, bool turned = false,
                 int64_t in_padding = 0, int64_t out_padding = 0) {
  const Shape shape{rows, columns}, in_shape = turned ? Shape{columns, rows} : shape;
  return {.name = std::move(name),
          .inputs = {{.name = "in",
                      .shape = in_shape,
                      .dtype = in,
                      .values = is_floating(in) ? extremes(10, 10) : integers(0, 100),
                      .batch_dimension = turned ? 1 : 0,
                      .padding = in_padding}},
          .outputs = {{.name = "out", .shape = shape, .dtype = out, .padding = out_padding}},
          .run = [turned](const Arguments& a) { kernels::copy(a["out"], turned ? a["in"].transpose(0, 1) : a["in"]); },
          .bytes = 1.0 * rows * columns * (size_of(out) + size_of(in))};
}

inline Case fill(std::string name, int64_t rows, int64_t columns, DType dtype, double value, int64_t padding = 0) {
  return {.name = std::move(name),
          .outputs = {{.name = "out", .shape = {rows, columns}, .dtype = dtype, .padding = padding}},
          .run = [value](const Arguments& a) { kernels::fill(a["out"], value); },
          .bytes = 1.0 * rows * columns * size_of(dtype)};
}

}  // namespace copy_cases

inline std::vector<Operation> copy_operations() {
  using namespace copy_cases;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  return {{.name = "copy",
           .cases = {copy("n1_f32", 1, 1, f32, f32), copy("f32_to_bf16", 5, 264, bf16, f32),
                     copy("bf16_to_f32_padded", 9, 40, f32, bf16, false, 3, 5),
                     copy("f16_to_bf16_padded_aligned", 3, 24, bf16, f16, false, 8, 8),
                     copy("turned_f32_to_f16", 5, 17, f16, f32, true, 1),
                     copy("turned_i32", 6, 33, DType::i32, DType::i32, true),
                     copy("padded_u8", 6, 33, DType::u8, DType::u8, false, 2, 1),
                     copy("padded_bf16", 6, 40, bf16, bf16, false, 8, 0)},
           .timed = {copy("n16m_f32_to_bf16", 4096, 4096, bf16, f32), copy("n16m_bf16", 4096, 4096, bf16, bf16),
                     copy("t4096_halves_bf16", 4096, 4096, bf16, bf16, false, 4096)},
           .cuda_body = true},
          {.name = "fill",
           .cases = {fill("n1_f32", 1, 1, f32, 3), fill("n264_bf16_padded", 5, 264, bf16, -0.1, 8),
                     fill("n17_i64_padded", 3, 17, DType::i64, -7, 1), fill("n3000_u8", 1, 3000, DType::u8, 255)},
           .timed = {fill("n16m_f32", 4096, 4096, f32, 1)},
           .cuda_body = true}};
}

}  // namespace lathe::testing
