// The cases of dropout.
#pragma once

#include "kernels/dropout/dropout.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace dropout_cases {

struct Layout {
  std::vector<double> cu_seqlens;
  std::vector<double> sample_numbers;
};

inline Case dropout(std::string name, int64_t columns, DType dtype, Layout layout, float probability,
                    int64_t padding = 0, bool in_place = false) {
  const int64_t tokens = static_cast<int64_t>(layout.cu_seqlens.back()),
                sequences = static_cast<int64_t>(layout.sample_numbers.size());
  const Shape shape{tokens, columns};
  const kernels::DropoutParams params{
      .probability = probability, .seed = 0x123456789abcdef0u, .step = 70000, .stream = 9};
  return {.name = std::move(name),
          .inputs = {{.name = "x", .shape = shape, .dtype = dtype, .values = normal(), .padding = padding},
                     sequence_bounds(layout.cu_seqlens),
                     {.name = "sample_numbers",
                      .shape = {sequences},
                      .dtype = DType::i32,
                      .values = values(layout.sample_numbers),
                      .batch = Batch::sequences,
                      .on_cpu = true}},
          .outputs =
              {{.name = "out", .shape = shape, .dtype = dtype, .padding = padding, .in_place_of = in_place ? "x" : ""}},
          .run =
              [params](const Arguments& a) {
                kernels::dropout(a["out"], a["x"], a["cu_seqlens"], a["sample_numbers"], params);
              },
          .flops = 20.0 * tokens * columns,
          .bytes = 2.0 * tokens * columns * size_of(dtype)};
}

// The same call takes the gradient that arrives at `dropped` back to `input`.
inline Case backward(Case test_case) {
  Operand input = test_case.inputs[0];
  input.name = "input";
  test_case.inputs.push_back(input);
  const Call run = test_case.run;
  test_case.gradient = {{.forward =
                             [run](const Arguments& a) {
                               Arguments forward;
                               for (const char* name : {"cu_seqlens", "sample_numbers"}) forward.set(name, a[name]);
                               forward.set("x", a["input"]);
                               forward.set("out", a["dropped"]);
                               run(forward);
                             },
                         .results = {{.name = "dropped", .cotangent = "x"}},
                         .gradients = {{.of = "input", .in = "out"}}}};
  return test_case;
}

}  // namespace dropout_cases

inline std::vector<Operation> dropout_operations() {
  using namespace dropout_cases;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  const Layout three{{0, 2, 3, 9}, {7, 0, 65535}};
  // More sequences than one launch takes, most of them empty.
  Layout many{{0}, {}};
  for (int s = 0; s < 530; ++s) {
    many.cu_seqlens.push_back(many.cu_seqlens.back() + (s % 9 == 4));
    many.sample_numbers.push_back(s * 31);
  }
  return {{.name = "dropout",
           .cases = {dropout("k1_f32", 1, f32, three, 0.5f), dropout("k7_bf16", 7, bf16, three, 0.25f),
                     dropout("k64_f32_in_place", 64, f32, three, 0.1f, 0, true),
                     dropout("k67_bf16_padded", 67, bf16, three, 0.9f, 5), dropout("k67_f16", 67, f16, three, 0.25f),
                     dropout("k264_bf16", 264, bf16, three, 0.05f), dropout("keeps_all_f32", 33, f32, three, 0.0f),
                     backward(dropout("backward_k40_f32", 40, f32, three, 0.3f))},
           .timed = {dropout("t512_k576_f32", 576, f32, {{0, 200, 512}, {0, 1}}, 0.05f),
                     dropout("t4096_k4096_bf16", 4096, bf16, {{0, 4096}, {0}}, 0.05f)},
           .cuda_body = true},
          {.name = "dropout_many_sequences", .cases = {dropout("s530_f32", 12, f32, many, 0.5f)}, .cuda_body = true}};
}

}  // namespace lathe::testing
