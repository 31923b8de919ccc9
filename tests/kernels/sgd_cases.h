// The cases of sgd.
#pragma once

#include "kernels/sgd/sgd.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

namespace sgd_cases {

inline Case step(std::string name, int64_t rows, int64_t columns, kernels::SgdParams params) {
  const Shape shape{rows, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "weight", .shape = shape, .values = normal()},
                     {.name = "grad", .shape = shape, .values = normal()}},
          .outputs = {{.name = "new_weight", .shape = shape, .in_place_of = "weight"}},
          .run = [params](const Arguments& a) { kernels::sgd(a["weight"], a["grad"], params); },
          .flops = 3.0 * rows * columns,
          .bytes = 12.0 * rows * columns};
}

}  // namespace sgd_cases

inline std::vector<Operation> sgd_operations() {
  using namespace sgd_cases;
  return {{.name = "sgd",
           .cases = {step("one", 1, 1, {}), step("decay", 3, 15, {.learning_rate = 0.1, .weight_decay = 0.1}),
                     step("clipped", 3, 17, {.learning_rate = 3e-2, .grad_scale = 0.037}),
                     step("long", 33, 500, {.learning_rate = 1e-2, .weight_decay = 0.01})},
           .timed = {step("n460800", 800, 576, {}), step("n16777216", 4096, 4096, {})},
           .cuda_body = true}};
}

}  // namespace lathe::testing
