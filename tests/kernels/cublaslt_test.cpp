// cuBLASLt as lathe-bench's peer multiplies what our products multiply, in every layout. Needs a card and the library.
#include "kernels/cuda/cublaslt.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/matmul/matmul.h"

namespace lathe::kernels {
namespace {

Tensor matrix(Device device, int64_t rows, int64_t columns, DType dtype, int seed) {
  const Tensor wide = Tensor::empty({rows, columns}, DType::f32);
  int i = seed;
  for (float& value : wide.span<float>()) value = static_cast<float>(i++ * 37 % 101) / 64 - 0.75f;
  const Tensor here = cast(wide, dtype), there = Tensor::empty(here.shape(), dtype, device);
  copy_bytes(device, there.raw(), {}, here.raw(), here.nbytes());
  return there;
}

// Both add in f32, in different orders: terms of at most 1, k of them, 2^-24 lost at each.
void expect_close(const Tensor& found, const Tensor& expected, int64_t k) {
  const auto values = [](const Tensor& tensor) {
    const Tensor here = Tensor::empty(tensor.shape(), tensor.dtype());
    copy_bytes({}, here.raw(), tensor.device(), tensor.raw(), tensor.nbytes());
    return here;
  };
  const Tensor a = values(found), b = values(expected);
  for (int64_t i = 0; i < a.numel(); ++i)
    ASSERT_NEAR(a.data<float>()[i], b.data<float>()[i], std::ldexp(static_cast<float>(k * k), -23)) << i;
}

TEST(Cublaslt, MultipliesWhatOurProductsMultiply) {
  const Device device{DeviceKind::cuda};
  if (const std::string why = why_no_cublaslt(device); !why.empty()) GTEST_SKIP() << why;
  constexpr int64_t m = 72, n = 136, k = 200;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    const Tensor ours = matrix(device, m, n, DType::f32, 1), theirs = matrix(device, m, n, DType::f32, 1);
    const Tensor x = matrix(device, m, k, dtype, 2), weight = matrix(device, n, k, dtype, 3);
    linear_forward(ours, x, weight);
    CublasltProduct({.layout = ProductLayout::rows_rows, .out = theirs, .left = x, .right = weight}).queue();
    expect_close(theirs, ours, k);

    const Tensor plain = matrix(device, k, n, dtype, 4);
    matmul(ours, x, plain, Layout::plain);
    CublasltProduct({.layout = ProductLayout::rows_plain, .out = theirs, .left = x, .right = plain}).queue();
    expect_close(theirs, ours, k);

    const Tensor tokens = matrix(device, k, m, dtype, 5);
    const int32_t bounds[] = {0, static_cast<int32_t>(k)};
    linear_weight_gradient(ours, tokens, plain, Tensor::of<int32_t>(bounds, {2}));
    CublasltProduct(
        {.layout = ProductLayout::columns_plain, .out = theirs, .left = tokens, .right = plain, .accumulates = true})
        .queue();
    expect_close(theirs, ours, 2 * k);
  }
}

TEST(Cublaslt, SaysWhyItIsNotThere) {
  EXPECT_NE(why_no_cublaslt({DeviceKind::cpu}), "");
  EXPECT_NE(why_no_cublaslt({DeviceKind::simt}), "");
  const Tensor x = Tensor::zeros({2, 2}, DType::f32);
  EXPECT_THROW(CublasltProduct({.layout = ProductLayout::rows_rows, .out = x, .left = x, .right = x}), ResourceError);
}

}  // namespace
}  // namespace lathe::kernels
