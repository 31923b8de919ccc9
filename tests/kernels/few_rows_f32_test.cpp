// A few rows of f32 on a device: the bits of the tiles that many rows take, which are those of a CPU with fused
// multiply-adds, by dense weights and by codes.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/matmul/matmul.h"
#include "kernels/simd/isa.h"

namespace lathe::kernels {
namespace {

class FewRowsF32 : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }
  Tensor random_matrix(int64_t rows, int64_t columns) {
    const Tensor made = Tensor::empty({rows, columns}, DType::f32);
    for (float& value : made.span<float>()) value = static_cast<float>(random_.below(20001)) * 1e-4f - 1.0f;
    return made;
  }
  Tensor there(const Tensor& tensor) const { return moved(tensor, device()); }
  static std::vector<std::byte> bytes(const Tensor& tensor) {
    std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
    copy_bytes({}, result.data(), tensor.device(), tensor.raw(), tensor.nbytes());
    return result;
  }

 private:
  RandomStream random_{1, RandomPurpose::test};
};

INSTANTIATE_TEST_SUITE_P(, FewRowsF32, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return to_string(Device{info.param}).substr(0, 4); });

// A part of a chain; more chains than a block takes at once; rows that do not begin at multiples of 16 bytes, which
// take the tiles; with everything that joins a product.
TEST_P(FewRowsF32, HaveTheBitsOfACpuWithFusedMultiplyAdds) {
  if (active_isa() == Isa::baseline) GTEST_SKIP() << "this CPU has no fused multiply-add";
  constexpr int64_t n = 37, rank = 4;
  for (const int64_t k : {20, 1030, 4612}) {
    for (const int64_t rows : {1, 3, 16}) {
      const Tensor x = random_matrix(rows, k), weight = random_matrix(n, k);
      const Tensor t = random_matrix(rows, rank), b = random_matrix(n, rank);
      const Tensor bias = random_matrix(1, n).view({n}), residual = random_matrix(rows, n);
      const Tensor out = Tensor::empty({rows, n}, DType::f32), on_device = there(out);
      linear_forward(out, x, weight, {.lora_t = t, .lora_b = b, .bias = bias, .residual = residual});
      linear_forward(on_device, there(x), there(weight),
                     {.lora_t = there(t), .lora_b = there(b), .bias = there(bias), .residual = there(residual)});
      EXPECT_EQ(bytes(on_device), bytes(out)) << rows << " rows, k " << k;
    }
  }
}

TEST_P(FewRowsF32, OfCodesHaveTheBitsOfTheDequantisedWeight) {
  constexpr int64_t n = 37, k = 640;
  for (const QuantizedFormat format : {QuantizedFormat::nf4, QuantizedFormat::int8}) {
    const QuantizedWeight weight = QuantizedWeight::quantize(there(random_matrix(n, k)), format);
    const Tensor dense = Tensor::empty({n, k}, DType::f32, device());
    weight.dequantize(dense);
    for (const int64_t rows : {1, 3, 16, 17}) {
      const Tensor x = there(random_matrix(rows, k));
      const Tensor out = Tensor::empty({rows, n}, DType::f32, device()),
                   expected = Tensor::empty({rows, n}, DType::f32, device());
      linear_forward(out, x, weight);
      linear_forward(expected, x, dense);
      EXPECT_EQ(bytes(out), bytes(expected)) << rows << " rows";
    }
  }
}

}  // namespace
}  // namespace lathe::kernels
