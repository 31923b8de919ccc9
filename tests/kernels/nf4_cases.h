// The cases of kernels/nf4: block sizes, rows that end inside a block, odd numbers of elements, every dtype.
#pragma once

#include <string>
#include <vector>

#include "kernels/nf4/nf4.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace nf4_cases {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline std::string name_of_shape(int64_t rows, int64_t columns, int64_t block_size) {
  return std::to_string(rows) + "_" + std::to_string(columns) + "_block" + std::to_string(block_size);
}

inline Operand shared(std::string name, Shape shape, DType dtype, Generator values = {}) {
  return {.name = std::move(name), .shape = shape, .dtype = dtype, .values = std::move(values), .batch = Batch::shared};
}

inline Case quantize_case(int64_t rows, int64_t columns, int64_t block_size, DType dtype, Generator values,
                          const std::string& suffix = "") {
  return {.name = name_of_shape(rows, columns, block_size) + "_" + std::string(name_of(dtype)) + suffix,
          .inputs = {shared("weight", {rows, columns}, dtype, std::move(values))},
          .outputs = {shared("codes", {ceil_div(rows * columns, 2)}, DType::u8),
                      shared("absmax", {ceil_div(rows * columns, block_size)}, DType::f32)},
          .run = [=](const Arguments& a) { kernels::nf4_quantize(a["codes"], a["absmax"], a["weight"], block_size); }};
}

inline Case nest_case(int64_t blocks, Generator absmax, const std::string& suffix = "") {
  return {.name = std::to_string(blocks) + suffix,
          .inputs = {shared("absmax", {blocks}, DType::f32, std::move(absmax))},
          .outputs = {shared("offset", {1}, DType::f32), shared("absmax_codes", {blocks}, DType::u8),
                      shared("nested_absmax", {ceil_div(blocks, kernels::nf4_nested_block)}, DType::f32)},
          .run =
              [](const Arguments& a) {
                kernels::nf4_offset(a["offset"], a["absmax"]);
                kernels::nf4_nest(a["absmax_codes"], a["nested_absmax"], a["absmax"], a["offset"]);
              },
          .reduction = blocks};
}

// The quantised weight that inputs of these names make; what is not there stays undefined.
inline kernels::Nf4Weight weight_of(const Arguments& a, int64_t rows, int64_t columns, int64_t block_size) {
  kernels::Nf4Weight weight{.rows = rows, .columns = columns, .block_size = block_size, .codes = a["codes"]};
  if (a.has("absmax")) {
    weight.absmax = a["absmax"];
  } else {
    weight.absmax_codes = a["absmax_codes"], weight.nested_absmax = a["nested_absmax"], weight.offset = a["offset"];
  }
  return weight;
}

// Inputs of weight_of. Scales around 2, as of normal weights.
inline std::vector<Operand> weight_inputs(int64_t rows, int64_t columns, int64_t block_size,
                                          kernels::Nf4Scales scales) {
  const int64_t blocks = ceil_div(rows * columns, block_size);
  std::vector<Operand> inputs = {shared("codes", {ceil_div(rows * columns, 2)}, DType::u8, integers(0, 255))};
  inputs[0].may_repeat = true;
  if (scales == kernels::Nf4Scales::plain) {
    inputs.push_back(shared("absmax", {blocks}, DType::f32, uniform(0.5, 3.5)));
  } else {
    inputs.push_back(shared("absmax_codes", {blocks}, DType::u8, integers(0, 255)));
    inputs.push_back(
        shared("nested_absmax", {ceil_div(blocks, kernels::nf4_nested_block)}, DType::f32, uniform(0.5, 1.5)));
    inputs.push_back(shared("offset", {1}, DType::f32, constant(2.0)));
  }
  return inputs;
}

inline Case dequantize_case(int64_t rows, int64_t columns, int64_t block_size, kernels::Nf4Scales scales, DType dtype,
                            int64_t first_row = 0) {
  const int64_t count = rows - first_row;
  return {.name = name_of_shape(rows, columns, block_size) +
                  (scales == kernels::Nf4Scales::plain ? "_plain_" : "_nested_") + std::string(name_of(dtype)) +
                  (first_row > 0 ? "_from_row" + std::to_string(first_row) : ""),
          .inputs = weight_inputs(rows, columns, block_size, scales),
          .outputs = {shared("out", {count, columns}, dtype)},
          .run = [=](const Arguments& a) {
            kernels::nf4_dequantize(a["out"], weight_of(a, rows, columns, block_size), first_row);
          }};
}

}  // namespace nf4_cases

inline std::vector<Operation> nf4_operations() {
  using namespace nf4_cases;
  using kernels::Nf4Scales;
  Operation quantize{.name = "nf4_quantize", .cuda_body = true}, nest{.name = "nf4_nest", .cuda_body = true};
  Operation dequantize{.name = "nf4_dequantize", .cuda_body = true};
  quantize.cases = {quantize_case(6, 64, 64, DType::f32, normal()),
                    quantize_case(3, 67, 64, DType::f32, normal()),  // odd, and a short block at the end
                    quantize_case(5, 96, 128, DType::bf16, normal()),
                    quantize_case(9, 32, 32, DType::f16, normal()),
                    quantize_case(2, 4096, 4096, DType::bf16, normal(0.02)),
                    quantize_case(1, 1, 64, DType::f32, normal()),
                    quantize_case(4, 64, 64, DType::f32, constant(0.0), "_zeros"),
                    quantize_case(4, 256, 64, DType::f32, extremes(60, 120), "_extremes"),
                    quantize_case(4, 64, 32, DType::bf16, extremes(60, 120), "_extremes")};
  nest.cases = {nest_case(256, uniform(1.0, 4.0)), nest_case(300, uniform(1.0, 4.0)), nest_case(1, uniform(1.0, 4.0)),
                nest_case(1100, uniform(0.0, 1e-3)), nest_case(70, constant(0.0), "_zeros")};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    dequantize.cases.push_back(dequantize_case(6, 64, 64, Nf4Scales::plain, dtype));
    dequantize.cases.push_back(dequantize_case(12, 1600, 64, Nf4Scales::nested, dtype));
  }
  dequantize.cases.push_back(dequantize_case(3, 67, 32, Nf4Scales::nested, DType::f32));
  dequantize.cases.push_back(dequantize_case(5, 67, 64, Nf4Scales::plain, DType::bf16, 3));
  dequantize.cases.push_back(dequantize_case(7, 96, 128, Nf4Scales::nested, DType::bf16, 2));
  dequantize.cases.push_back(dequantize_case(1, 1, 4096, Nf4Scales::plain, DType::f32));
  dequantize.cases.push_back(dequantize_case(9, 71, 32, Nf4Scales::plain, DType::f16));           // whole runs, then 31
  dequantize.cases.push_back(dequantize_case(100, 1600, 64, Nf4Scales::nested, DType::bf16, 1));  // threads take turns

  for (const DType dtype : {DType::f32, DType::bf16}) {
    quantize.timed.push_back(quantize_case(2048, 2048, 64, dtype, normal()));
    dequantize.timed.push_back(dequantize_case(2048, 2048, 64, Nf4Scales::nested, dtype));
  }
  dequantize.timed.push_back(dequantize_case(4096, 14336, 64, Nf4Scales::nested, DType::bf16));
  return {quantize, nest, dequantize};
}

}  // namespace lathe::testing
