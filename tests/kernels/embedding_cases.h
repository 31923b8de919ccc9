// The cases of embedding.
#pragma once

#include "kernels/embedding/embedding.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace embedding_cases {

inline Case forward(std::string name, int64_t tokens, int64_t vocabulary, int64_t hidden, DType dtype,
                    bool packed = false, bool ids_on_cpu = true) {
  return {.name = std::move(name),
          .inputs = {{.name = "ids",
                      .shape = {tokens},
                      .dtype = DType::i32,
                      .values = integers(0, vocabulary - 1),
                      .on_cpu = ids_on_cpu},
                     {.name = "weight",
                      .shape = {vocabulary, hidden},
                      .dtype = dtype,
                      .values = normal(),
                      .batch = Batch::shared}},
          .outputs = {{.name = "out", .shape = {tokens, hidden}, .dtype = dtype, .padding = packed ? 3 : 0}},
          .run =
              [packed](const Arguments& a) {
                if (!packed || a["weight"].dtype() == DType::f64)
                  return kernels::embedding_forward(a["out"], a["weight"], a["ids"]);
                kernels::embedding_forward(a["out"], kernels::pack_weight(a["weight"], a["weight"].dtype()), a["ids"]);
              },
          .bytes = 2.0 * tokens * hidden * size_of(dtype)};
}

inline Case backward(std::string name, int64_t vocabulary, int64_t hidden, DType dtype, std::vector<double> cu_seqlens,
                     int64_t padding = 0) {
  const int64_t tokens = static_cast<int64_t>(cu_seqlens.back());
  return {
      .name = std::move(name),
      .inputs =
          {{.name = "grad_out", .shape = {tokens, hidden}, .dtype = dtype, .values = normal(), .padding = padding},
           {.name = "ids",
            .shape = {tokens},
            .dtype = DType::i32,
            .values = integers(0, vocabulary - 1),
            .on_cpu = true},
           {.name = "weight",
            .shape = {vocabulary, hidden},
            .dtype = dtype,
            .values = normal(),
            .batch = Batch::shared},
           sequence_bounds(cu_seqlens)},
      .outputs = {{.name = "grad_weight",
                   .shape = {vocabulary, hidden},
                   .values = normal(),
                   .batch = Batch::shared,
                   .padding = padding,
                   .accumulates = true,
                   .factor = 3}},
      .run =
          [](const Arguments& a) {
            kernels::embedding_backward(a["grad_weight"], a["grad_out"], a["ids"], a["cu_seqlens"]);
          },
      .gradient = {{.forward = [](const Arguments& a) { kernels::embedding_forward(a["out"], a["weight"], a["ids"]); },
                    .results = {{.name = "out", .cotangent = "grad_out"}},
                    .gradients = {{.of = "weight", .in = "grad_weight"}}}},
      .reduction = tokens,
      .flops = 1.0 * tokens * hidden,
      .bytes = tokens * hidden * (size_of(dtype) + 8.0)};
}

}  // namespace embedding_cases

inline std::vector<Operation> embedding_operations() {
  using namespace embedding_cases;
  return {
      {.name = "embedding_forward",
       .cases = {forward("h1_f32", 5, 7, 1, DType::f32), forward("h17_bf16", 9, 40, 17, DType::bf16),
                 forward("h576_f32", 70, 11, 576, DType::f32), forward("packed_h17_f32", 9, 40, 17, DType::f32, true),
                 forward("packed_h64_bf16", 9, 45, 64, DType::bf16, true),
                 // More ids than one launch takes: 17 bits each, across words.
                 forward("t1700_v70000_h1_f32", 1700, 70000, 1, DType::f32),
                 forward("t800_h8_f16", 800, 5, 8, DType::f16),
                 forward("h264_bf16_ids_on_device", 5, 7, 264, DType::bf16, false, false)},
       .timed = {forward("t512_h576_f32", 512, 8192, 576, DType::f32),
                 forward("t8192_h4096_bf16", 8192, 32768, 4096, DType::bf16)},
       .cuda_body = true},
      {.name = "embedding_backward",
       .cases = {backward("h1_f32", 3, 1, DType::f32, {0, 4, 9}),
                 backward("h15_bf16", 5, 15, DType::bf16, {0, 1, 8, 20}),
                 backward("h15_f16", 5, 15, DType::f16, {0, 1, 8, 20}),
                 backward("h17_f32", 4, 17, DType::f32, {0, 12, 13, 30}),
                 backward("h576_f32", 9, 576, DType::f32, {0, 40, 140}),
                 backward("h20_bf16_padded", 6, 20, DType::bf16, {0, 3, 3, 11}, 4)},
       .timed = {backward("t512_h576_f32", 8192, 576, DType::f32, {0, 128, 512})},
       .cuda_body = true},
  };
}

}  // namespace lathe::testing
