// The cases of adamw.
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

}  // namespace adamw_cases

inline std::vector<Operation> adamw_operations() {
  using adamw_cases::step;
  return {{.name = "adamw",
           .cases = {step("first", 1, 1, {}),
                     step("step10_decay", 3, 15, {.learning_rate = 0.1, .weight_decay = 0.1, .step = 10}),
                     step("clipped", 3, 17, {.learning_rate = 3e-4, .beta2 = 0.95, .grad_scale = 0.037, .step = 1000}),
                     step("tiny_gradients", 3, 17, {.learning_rate = 1e-2, .step = 3}, 1e-9),
                     step("long", 40, 1000, {.learning_rate = 1e-2, .weight_decay = 0.01, .step = 7})},
           .timed = {step("n460800", 800, 576, {})}}};
}

}  // namespace lathe::testing
