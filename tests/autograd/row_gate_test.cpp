#include "autograd/ops/row_gate.h"

#include "autograd/gradcheck.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

TEST(RowGateGradient, IsThatOfDifferences) {
  RandomStream random(6, RandomPurpose::test);
  const auto leaf = [&](const Shape& shape) { return Variable::leaf(random_tensor(random, shape, DType::f64)); };
  const std::vector<Variable> all = {leaf({5, 1}), leaf({5, 7}), leaf({5, 7})};
  const GradcheckResult result = gradcheck(
      [&](std::span<const Variable> in) { return std::vector<Variable>{row_gate(in[0], in[1], in[2])}; }, all);
  EXPECT_TRUE(result.passed) << result.report;
}

}  // namespace
}  // namespace lathe::autograd::testing
