// The linear operation on devices, forward and backward with every term: in f32 the CPU's very bits.
#include <gtest/gtest.h>

#include "autograd/ops/linear.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simd/isa.h"
#include "tests/autograd/tensors.h"

namespace lathe::autograd::testing {
namespace {

Tensor on(Device device, const Tensor& tensor) {
  const Tensor result = Tensor::empty(tensor.shape(), tensor.dtype(), device);
  kernels::copy_bytes(device, result.raw(), tensor.device(), tensor.raw(), tensor.nbytes());
  return result;
}

class LinearOnDevice : public ::testing::TestWithParam<DeviceKind> {};
INSTANTIATE_TEST_SUITE_P(, LinearOnDevice, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return info.param == DeviceKind::simt ? "simt" : "cuda"; });

TEST_P(LinearOnDevice, forward_and_gradients_have_the_cpus_bits) {
  const Device device{GetParam()};
  if (const std::string why = kernels::why_unavailable(device); !why.empty()) GTEST_SKIP() << why;
  if (kernels::active_isa() == kernels::Isa::baseline) GTEST_SKIP() << "this CPU has no fused multiply-add";
  RandomStream random(5, RandomPurpose::test);
  const SequenceLayout layout = layout_of({3, 1, 5}, 0);
  constexpr int64_t tokens = 9, in = 12, out = 7, rank = 2;
  const Tensor x = random_tensor(random, {tokens, in}, DType::f32),
               weight = random_tensor(random, {out, in}, DType::f32);
  const Tensor a = random_tensor(random, {rank, in}, DType::f32), b = random_tensor(random, {out, rank}, DType::f32);
  const Tensor bias = random_tensor(random, {out}, DType::f32),
               residual = random_tensor(random, {tokens, out}, DType::f32);
  const Tensor cotangent = random_tensor(random, {tokens, out}, DType::f32);

  const auto run = [&](Device where, float dropout) {
    const Variable leaves[] = {Variable::leaf(on(where, x)), Variable::leaf(on(where, a)), Variable::leaf(on(where, b)),
                               Variable::leaf(on(where, bias)), Variable::leaf(on(where, residual))};
    LinearTerms terms{.bias = leaves[3], .residual = leaves[4]};
    terms.lora = {LoraTerm{leaves[1], leaves[2], 1.75f, {.probability = dropout, .seed = 9, .step = 4, .stream = 6}}};
    const auto packed = kernels::pack_weight(on(where, weight), DType::f32);
    const Variable y = linear(leaves[0], packed, layout, terms);
    backward(y, on(where, cotangent));
    std::vector<Tensor> results{on({}, y.value())};
    for (const Variable& leaf : leaves) results.push_back(on({}, leaf.grad()));
    return results;
  };
  for (const float dropout : {0.0f, 0.375f}) {
    const std::vector<Tensor> expected = run({}, dropout), found = run(device, dropout);
    const char* names[] = {"y", "grad x", "grad a", "grad b", "grad bias", "grad residual"};
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(same_bits(found[i], expected[i])) << names[i] << " with dropout " << dropout;
    }
  }
}

}  // namespace
}  // namespace lathe::autograd::testing
