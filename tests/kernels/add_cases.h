// The cases of add and scale.
#pragma once

#include "kernels/add/add.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace add_cases {

struct Dtypes {
  DType out, a, b;
};

inline Case add(std::string name, int64_t rows, int64_t columns, Dtypes dtypes, double scale,
                std::string in_place_of = "") {
  const Shape shape{rows, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "a", .shape = shape, .dtype = dtypes.a, .values = normal()},
                     {.name = "b", .shape = shape, .dtype = dtypes.b, .values = extremes()}},
          .outputs = {{.name = "out", .shape = shape, .dtype = dtypes.out, .in_place_of = std::move(in_place_of)}},
          .run = [scale](const Arguments& a) { kernels::add(a["out"], a["a"], a["b"], scale); },
          .flops = 2.0 * rows * columns,
          .bytes = 1.0 * rows * columns * (size_of(dtypes.out) + size_of(dtypes.a) + size_of(dtypes.b))};
}

inline Case scale(std::string name, int64_t rows, int64_t columns, DType out, DType a, double factor) {
  const Shape shape{rows, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "a", .shape = shape, .dtype = a, .values = extremes()}},
          .outputs = {{.name = "out", .shape = shape, .dtype = out}},
          .run = [factor](const Arguments& arguments) { kernels::scale(arguments["out"], arguments["a"], factor); },
          .flops = 1.0 * rows * columns,
          .bytes = 1.0 * rows * columns * (size_of(out) + size_of(a))};
}

inline Case scale_rows(std::string name, int64_t rows, int64_t columns, DType dtype) {
  const Shape shape{rows, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "a", .shape = shape, .dtype = dtype, .values = extremes()},
                     {.name = "scales", .shape = {rows}, .values = normal()}},
          .outputs = {{.name = "out", .shape = shape, .dtype = dtype, .in_place_of = "a"}},
          .run = [](const Arguments& a) { kernels::scale_rows(a["out"], a["a"], a["scales"]); },
          .flops = 1.0 * rows * columns,
          .bytes = 2.0 * rows * columns * size_of(dtype)};
}

}  // namespace add_cases

inline std::vector<Operation> add_operations() {
  using namespace add_cases;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  return {
      {.name = "add",
       .cases = {add("n1_f32", 1, 1, {f32, f32, f32}, 1), add("n15_bf16", 3, 15, {bf16, bf16, bf16}, 1),
                 add("n17_mixed", 5, 17, {f32, f32, bf16}, 0.37), add("n17_mixed_back", 5, 17, {bf16, f32, bf16}, -2.5),
                 add("b_bf16_into_f32", 2, 33, {f32, bf16, f32}, 1e-3), add("out_bf16", 2, 33, {bf16, f32, f32}, 1),
                 add("wide_bf16", 2, 33, {bf16, bf16, f32}, 1), add("n33_f16", 2, 33, {f16, f16, f16}, 0.5),
                 add("f16_into_f32", 2, 33, {f32, f32, f16}, 1), add("out_f16", 2, 17, {f16, f32, f16}, 1),
                 add("wide_f32", 2, 33, {f32, bf16, bf16}, 1),
                 add("in_place_of_a", 70, 1024, {f32, f32, f32}, 0.5, "a"),
                 add("in_place_of_b", 3, 31, {f32, f32, f32}, 0.5, "b")},
       .timed = {add("t512_h576_f32", 512, 576, {f32, f32, f32}, 1),
                 add("n16m_bf16", 4096, 4096, {bf16, bf16, bf16}, 1)},
       .cuda_body = true},
      {.name = "scale",
       .cases = {scale("n1_f32", 1, 1, f32, f32, 3), scale("n17_bf16", 4, 17, bf16, bf16, 0.1),
                 scale("n31_mixed", 4, 31, f32, bf16, -0.1), scale("n17_f16", 4, 17, f16, f16, 0.1),
                 scale("n70k_mixed", 70, 1024, bf16, f32, 7)},
       .timed = {scale("t512_h576_f32", 512, 576, f32, f32, 0.5)},
       .cuda_body = true},
      {.name = "scale_rows",
       .cases = {scale_rows("n1_f32", 1, 1, f32), scale_rows("h17_bf16", 5, 17, bf16),
                 scale_rows("h31_f16", 4, 31, f16), scale_rows("h1024_f32", 70, 1024, f32),
                 scale_rows("h256_bf16", 9, 256, bf16)},
       .timed = {scale_rows("t4096_h2048_bf16", 4096, 2048, bf16)},
       .cuda_body = true},
  };
}

}  // namespace lathe::testing
