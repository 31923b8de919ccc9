// The cases of adamw and adamw_8bit.
#pragma once

#include "kernels/adamw/adamw.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace adamw_cases {

inline Case step(std::string name, int64_t rows, int64_t columns, kernels::AdamWParams params,
                 double grad_scale = 1.0) {
  const Shape shape{rows, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "weight", .shape = shape, .values = normal()},
                     {.name = "grad", .shape = shape, .values = normal(grad_scale)},
                     {.name = "m", .shape = shape, .values = normal(grad_scale)},
                     {.name = "v",
                      .shape = shape,
                      .values = uniform(0.5 * grad_scale * grad_scale, 2 * grad_scale * grad_scale)}},
          .outputs = {{.name = "new_weight", .shape = shape, .in_place_of = "weight"},
                      {.name = "new_m", .shape = shape, .in_place_of = "m"},
                      {.name = "new_v", .shape = shape, .in_place_of = "v"}},
          .run = [params](const Arguments& a) { kernels::adamw(a["weight"], a["grad"], a["m"], a["v"], params); },
          .flops = 15.0 * rows * columns,
          .bytes = 28.0 * rows * columns};
}

// Codes of all kinds with the absolute maxima of their blocks.
inline Case step_8bit(std::string name, int64_t rows, int64_t columns, kernels::AdamWParams params) {
  const Shape shape{rows, columns};
  const int64_t blocks = (rows * columns + kernels::adamw_8bit_block - 1) / kernels::adamw_8bit_block;
  return {
      .name = std::move(name),
      .inputs = {{.name = "weight", .shape = shape, .values = normal(), .batch = Batch::shared},
                 {.name = "grad", .shape = shape, .values = normal(), .batch = Batch::shared},
                 {.name = "m", .shape = shape, .dtype = DType::u8, .values = integers(0, 255), .batch = Batch::shared},
                 {.name = "v", .shape = shape, .dtype = DType::u8, .values = integers(0, 255), .batch = Batch::shared},
                 {.name = "m_absmax", .shape = {blocks}, .values = uniform(0.0, 3.0), .batch = Batch::shared},
                 {.name = "v_absmax", .shape = {blocks}, .values = uniform(0.0, 9.0), .batch = Batch::shared}},
      .outputs = {{.name = "new_weight", .shape = shape, .batch = Batch::shared, .in_place_of = "weight"},
                  {.name = "new_m", .shape = shape, .dtype = DType::u8, .batch = Batch::shared, .in_place_of = "m"},
                  {.name = "new_v", .shape = shape, .dtype = DType::u8, .batch = Batch::shared, .in_place_of = "v"},
                  {.name = "new_m_absmax", .shape = {blocks}, .batch = Batch::shared, .in_place_of = "m_absmax"},
                  {.name = "new_v_absmax", .shape = {blocks}, .batch = Batch::shared, .in_place_of = "v_absmax"}},
      .run =
          [params](const Arguments& a) {
            kernels::adamw_8bit(a["weight"], a["grad"], {a["m"], a["v"], a["m_absmax"], a["v_absmax"]}, params);
          },
      .flops = 40.0 * rows * columns,
      .bytes = (16.0 + 16.0 / 256) * rows * columns};
}

}  // namespace adamw_cases

inline std::vector<Operation> adamw_operations() {
  using namespace adamw_cases;
  return {{.name = "adamw",
           .cases = {step("first", 1, 1, {}),
                     step("step10_decay", 3, 15, {.learning_rate = 0.1, .weight_decay = 0.1, .step = 10}),
                     step("clipped", 3, 17, {.learning_rate = 3e-4, .beta2 = 0.95, .grad_scale = 0.037, .step = 1000}),
                     step("tiny_gradients", 3, 17, {.learning_rate = 1e-2, .step = 3}, 1e-9),
                     step("long", 33, 500, {.learning_rate = 1e-2, .weight_decay = 0.01, .step = 7})},
           .timed = {step("n460800", 800, 576, {}), step("n16777216", 4096, 4096, {})},
           .cuda_body = true},
          {.name = "adamw_8bit",
           .cases = {step_8bit("n1", 1, 1, {.step = 2}),
                     step_8bit("n255", 5, 51, {.learning_rate = 0.1, .weight_decay = 0.1, .step = 10}),
                     step_8bit("n513", 3, 171, {.learning_rate = 3e-4, .beta2 = 0.95, .grad_scale = 0.037, .step = 9}),
                     step_8bit("n9000", 90, 100, {.learning_rate = 1e-2, .step = 7})},
           .timed = {step_8bit("n460800", 800, 576, {}), step_8bit("n16777216", 4096, 4096, {})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
