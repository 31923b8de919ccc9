// A few rows of f32 on a device: the bits of the tiles that many rows take, which are those of a CPU with fused
// multiply-adds, by dense weights and by codes.
#include "tests/kernels/f32_device.h"

namespace lathe::kernels {
namespace {

using FewRowsF32 = F32OnDevice;

INSTANTIATE_TEST_SUITE_P(, FewRowsF32, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return to_string(Device{info.param}).substr(0, 4); });

// A part of a chain; more chains than a block takes at once; rows that do not begin at multiples of 16 bytes, which
// take the tiles; with everything that joins a product.
TEST_P(FewRowsF32, HaveTheBitsOfACpuWithFusedMultiplyAdds) {
  if (active_isa() == Isa::baseline) GTEST_SKIP() << "this CPU has no fused multiply-add";
  for (const int64_t k : {20, 1030, 4612})
    for (const int64_t rows : {1, 3, 16}) expect_the_forward_of_the_cpu(rows, 37, k, 4);
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
