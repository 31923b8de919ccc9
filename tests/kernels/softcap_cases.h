// The cases of softcap.
#pragma once

#include "kernels/softcap/softcap.h"
#include "tests/support/operation_cases.h"

namespace lathe::testing {

inline Case softcap_case(std::string name, int64_t rows, int64_t columns, float cap, Generator x,
                         std::string in_place_of = {}, int64_t padding = 0) {
  const Shape shape{rows, columns};
  return {.name = std::move(name),
          .inputs = {{.name = "x", .shape = shape, .dtype = DType::f32, .values = std::move(x), .padding = padding}},
          .outputs = {{.name = "out",
                       .shape = shape,
                       .dtype = DType::f32,
                       .padding = padding,
                       .in_place_of = std::move(in_place_of)}},
          .run = [cap](const Arguments& a) { kernels::softcap(a["out"], a["x"], cap); },
          .flops = 20.0 * rows * columns,
          .bytes = 8.0 * rows * columns};
}

inline std::vector<Operation> softcap_operations() {
  return {{.name = "softcap",
           .cases = {softcap_case("c17", 5, 17, 2.0f, normal(4)), softcap_case("c64", 3, 64, 30.0f, normal(40), "x"),
                     softcap_case("padded", 4, 40, 30.0f, normal(40), {}, 3),
                     softcap_case("extremes", 2, 40, 30.0f, extremes())},
           .cuda_body = true}};
}

}  // namespace lathe::testing
