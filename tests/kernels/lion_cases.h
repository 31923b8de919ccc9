// The cases of lion.
#pragma once

#include "kernels/lion/lion.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace lion_cases {

inline Case step(std::string name, int64_t rows, int64_t columns, kernels::LionParams params,
                 Generator grad = normal()) {
  const Shape shape{rows, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "weight", .shape = shape, .values = normal()},
                     {.name = "grad", .shape = shape, .values = grad},
                     {.name = "m", .shape = shape, .values = std::move(grad)}},
          .outputs = {{.name = "new_weight", .shape = shape, .in_place_of = "weight"},
                      {.name = "new_m", .shape = shape, .in_place_of = "m"}},
          .run = [params](const Arguments& a) { kernels::lion(a["weight"], a["grad"], a["m"], params); },
          .flops = 10.0 * rows * columns,
          .bytes = 20.0 * rows * columns};
}

}  // namespace lion_cases

inline std::vector<Operation> lion_operations() {
  using namespace lion_cases;
  return {{.name = "lion",
           .cases = {step("one", 1, 1, {}), step("decay", 3, 15, {.learning_rate = 0.1, .weight_decay = 0.1}),
                     step("clipped", 3, 17, {.beta1 = 0.95, .beta2 = 0.98, .grad_scale = 0.037}),
                     step("zeros", 2, 17, {.learning_rate = 0.1}, constant(0.0)),
                     step("long", 33, 500, {.learning_rate = 1e-2, .weight_decay = 0.01})},
           .timed = {step("n460800", 800, 576, {}), step("n16777216", 4096, 4096, {})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
