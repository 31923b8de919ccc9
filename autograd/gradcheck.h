// Compares the gradients of a function with central differences, in f64.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace lathe::autograd {

struct GradcheckOptions {
  // Central differences err by about step²·|f'''|/6 + ε·|f|/step: with step 1e-5 on values near one, 1e-10.
  double step = 1e-5;
  double tolerance = 1e-7;  // of |numeric − analytic| ≤ tolerance · (1 + |numeric|)
  int64_t elements = 64;    // of each input at most, spread evenly; 0 checks all
  uint64_t seed = 1;        // of the random cotangents
};

struct GradcheckResult {
  bool passed = true;
  double worst_error = 0;  // |numeric − analytic| / (1 + |numeric|)
  std::string report;      // the worst element: which input, where, both values
};

// `function` maps the leaves (f64, changed in place while checking and restored) to outputs; all outputs that
// need a gradient are contracted with fixed random cotangents. A leaf that gets no gradient must have none
// numerically.
GradcheckResult gradcheck(const std::function<std::vector<Variable>(std::span<const Variable>)>& function,
                          std::span<const Variable> leaves, const GradcheckOptions& options = {});

}  // namespace lathe::autograd
