// The cases of kernels/int8_blocks: rows that end inside a block, every dtype, strided matrices.
#pragma once

#include <string>
#include <vector>

#include "kernels/int8_blocks/int8_blocks.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace int8_blocks_cases {

inline int64_t blocks_of(int64_t columns) { return (columns + kernels::int8_block - 1) / kernels::int8_block; }

inline Case quantize_case(int64_t rows, int64_t columns, DType dtype, Generator values, int64_t padding = 0,
                          std::string suffix = "") {
  return {.name = std::to_string(rows) + "_" + std::to_string(columns) + "_" + std::string(name_of(dtype)) + suffix,
          .inputs = {{.name = "weight",
                      .shape = {rows, columns},
                      .dtype = dtype,
                      .values = std::move(values),
                      .padding = padding}},
          .outputs = {{.name = "codes", .shape = {rows, columns}, .dtype = DType::i8},
                      {.name = "scales", .shape = {rows, blocks_of(columns)}, .dtype = DType::f32}},
          .run = [](const Arguments& a) {
            kernels::int8_quantize({a["codes"], a["scales"]}, a["weight"]);
          }};
}

inline Case dequantize_case(int64_t rows, int64_t columns, DType dtype, int64_t padding = 0) {
  return {.name = std::to_string(rows) + "_" + std::to_string(columns) + "_" + std::string(name_of(dtype)),
          .inputs = {{.name = "codes", .shape = {rows, columns}, .dtype = DType::i8, .values = integers(-127, 127)},
                     {.name = "scales",
                      .shape = {rows, blocks_of(columns)},
                      .dtype = DType::f32,
                      .values = uniform(0.01, 0.04)}},
          .outputs = {{.name = "out", .shape = {rows, columns}, .dtype = dtype, .padding = padding}},
          .run = [](const Arguments& a) {
            kernels::int8_dequantize(a["out"], {a["codes"], a["scales"]});
          }};
}

}  // namespace int8_blocks_cases

inline std::vector<Operation> int8_blocks_operations() {
  using namespace int8_blocks_cases;
  Operation quantize{.name = "int8_quantize", .cuda_body = true},
      dequantize{.name = "int8_dequantize", .cuda_body = true};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    quantize.cases.push_back(quantize_case(5, 128, dtype, normal()));
    quantize.cases.push_back(quantize_case(3, 67, dtype, normal(0.02), 5));
    dequantize.cases.push_back(dequantize_case(5, 128, dtype));
    dequantize.cases.push_back(dequantize_case(3, 67, dtype, 5));
  }
  quantize.cases.push_back(quantize_case(2, 1, DType::f32, normal()));
  quantize.cases.push_back(quantize_case(2, 70, DType::f32, constant(0.0), 0, "_zeros"));
  quantize.cases.push_back(quantize_case(6, 192, DType::f32, extremes(60, 120), 0, "_extremes"));
  // Halves between two codes, whose absmax is 127: they go to the even one.
  quantize.cases.push_back(
      quantize_case(2, 64, DType::f32, values({127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5}), 0, "_halves"));
  for (const DType dtype : {DType::f32, DType::bf16}) {
    quantize.timed.push_back(quantize_case(2048, 2048, dtype, normal()));
    dequantize.timed.push_back(dequantize_case(2048, 2048, dtype));
  }
  dequantize.timed.push_back(dequantize_case(4096, 14336, DType::bf16));
  return {quantize, dequantize};
}

}  // namespace lathe::testing
