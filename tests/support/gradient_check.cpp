#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/support/kernel_checks.h"
#include "tests/support/operation_run.h"

namespace lathe::testing {
namespace {

// L = Σ over results of Σ cotangent · result, and Σ |cotangent · result|, which bounds the rounding of L.
struct Objective {
  double value = 0, magnitude = 0;
};

const Operand& operand_named(const Case& test_case, const std::string& name) {
  for (const auto* operands : {&test_case.inputs, &test_case.outputs})
    for (const Operand& operand : *operands)
      if (operand.name == name) return operand;
  throw std::out_of_range("the case has no tensor named '" + name + "'");
}

// The forward operation as a case: the backward's inputs, and the forward's results as outputs.
Case forward_case(const Case& test_case, const GradientCheck& check) {
  Case forward{.name = test_case.name, .inputs = test_case.inputs, .run = check.forward};
  for (const auto& result : check.results) {
    Operand output = operand_named(test_case, result.cotangent.empty() ? result.name : result.cotangent);
    output.name = result.name;
    output.in_place_of.clear();
    output.accumulates = false;
    std::erase_if(forward.inputs, [&](const Operand& input) { return input.name == result.name; });
    forward.outputs.push_back(output);
  }
  return forward;
}

Objective evaluate(const Case& forward, const GradientCheck& check, const Contents& contents) {
  BoundCase bound(forward, contents, {.wide = true, .inputs_may_change = true});
  forward.run(bound.arguments());
  Objective objective;
  for (const auto& result : check.results) {
    const std::vector<double> found = bound.read(result.name);
    for (size_t i = 0; i < found.size(); ++i) {
      const double term = found[i] * (result.cotangent.empty() ? 1.0 : contents.at(result.cotangent)[i]);
      objective.value += term;
      objective.magnitude += std::abs(term);
    }
  }
  return objective;
}

struct Slope {
  double value, uncertainty;
};

// Central difference along a direction of one input. Halving the step quarters the truncation error, so the difference
// of the two estimates is three times that of the finer one; the rounding of L adds its magnitude · 2^-50 / step.
Slope numerical_slope(const Case& forward, const GradientCheck& check, const Contents& contents,
                      const std::string& input, const std::vector<double>& direction) {
  const auto difference = [&](double step, double& magnitude) {
    Contents moved = contents;
    std::vector<double>& elements = moved[input];
    const std::vector<double>& start = contents.at(input);
    for (size_t i = 0; i < start.size(); ++i) elements[i] = start[i] + step * direction[i];
    const Objective above = evaluate(forward, check, moved);
    for (size_t i = 0; i < start.size(); ++i) elements[i] = start[i] - step * direction[i];
    const Objective below = evaluate(forward, check, moved);
    magnitude = above.magnitude + below.magnitude;
    return (above.value - below.value) / (2 * step);
  };
  const double step = 0x1p-16;
  double magnitude = 0;
  const double coarse = difference(2 * step, magnitude), fine = difference(step, magnitude);
  return {fine, std::abs(coarse - fine) + magnitude * 0x1p-50 / step};
}

std::string describe(const std::string& what, double analytic, const Slope& slope) {
  char text[160];
  std::snprintf(text, sizeof text, ": the operation gives %.12g, differences give %.12g ± %.3g", analytic, slope.value,
                slope.uncertainty);
  return what + text;
}

}  // namespace

Faults gradient(const Operation& operation, const Case& test_case) {
  Faults faults;
  for (const GradientCheck& check : test_case.gradient) {
    const Contents contents = make_contents(operation, test_case, Prepared::exact);
    BoundCase bound(test_case, contents, {.wide = true, .inputs_may_change = true});
    (test_case.reference ? test_case.reference : test_case.run)(bound.arguments());
    const Case forward = forward_case(test_case, check);
    RandomStream random(17, RandomPurpose::test);
    for (const auto& wanted : check.gradients) {
      std::vector<double> found = bound.read(wanted.in);
      if (const auto start = contents.find(wanted.in); start != contents.end())
        for (size_t i = 0; i < found.size(); ++i) found[i] -= start->second[i];
      // A gradient that is off in one element is off along a random direction, too.
      const auto off_along = [&](const std::vector<double>& direction, const std::string& what) {
        double analytic = 0, magnitude = 0;
        for (size_t i = 0; i < found.size(); ++i) {
          analytic += found[i] * direction[i];
          magnitude += std::abs(found[i] * direction[i]);
        }
        const Slope slope = numerical_slope(forward, check, contents, wanted.of, direction);
        const bool off = !(std::abs(analytic - slope.value) <= slope.uncertainty + 0x1p-44 * magnitude);
        if (off) faults.push_back(describe(what, analytic, slope));
        return off;
      };
      std::vector<double> direction(found.size());
      for (int draw = 0; draw < 3; ++draw) {
        for (double& element : direction) element = 2.0 * random.uniform() - 1.0;
        if (!off_along(direction, wanted.in + " along random direction " + std::to_string(draw))) continue;
        for (size_t i = 0; i < std::min<size_t>(found.size(), 4096); ++i) {  // then say which element
          std::fill(direction.begin(), direction.end(), 0.0);
          direction[i] = 1.0;
          if (off_along(direction, element_name(operand_named(test_case, wanted.in), i))) break;
        }
        break;
      }
    }
  }
  return faults;
}

}  // namespace lathe::testing
