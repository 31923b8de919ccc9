// Products by a weight that is dequantised a band of rows at a time: the bits of the whole, in less memory.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/memory.h"
#include "kernels/cuda/runtime.h"
#include "kernels/matmul/bands.h"
#include "kernels/simt/options.h"
#include "tests/kernels/ggml_blocks.h"

namespace lathe::testing {
namespace {

using kernels::LinearTerms;
using kernels::moved;
using kernels::QuantizedFormat;
using kernels::QuantizedWeight;
using kernels::Weight;

class MatmulBands : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = kernels::why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }
  Tensor random(int64_t rows, int64_t columns, DType dtype, uint64_t seed) const {
    return moved(random_matrix(rows, columns, dtype, seed), device());
  }
  // In bands of 256 rows and a last one of 89, of which the tiles are no multiple either.
  static constexpr int64_t n = 601, k = 256;
  static constexpr int64_t smallest_bands = 1;  // bytes, which no row has

  std::vector<Weight> weights(DType dtype) const {
    return {QuantizedWeight::quantize(random(n, k, DType::f32, 1), QuantizedFormat::nf4),
            QuantizedWeight::quantize(random(n, k, DType::f32, 1), QuantizedFormat::int8),
            RandomBlocks(GgmlFormat::q4_0, n, k, dtype, 2).on(device()),
            RandomBlocks(GgmlFormat::q6_k, n, k, dtype, 3).on(device())};
  }
  Tensor dequantized(const Weight& weight, DType dtype) const {
    const Tensor dense = Tensor::empty({n, k}, dtype, device());
    weight.ggml() ? weight.ggml()->dequantize(dense) : weight.quantized()->dequantize(dense);
    return dense;
  }
  void expect_bits_of_the_whole(const Tensor& x, const Weight& weight, const LinearTerms& terms) const {
    const Tensor out = Tensor::empty({x.dim(0), n}, x.dtype(), device()),
                 whole = Tensor::empty(out.shape(), x.dtype(), device());
    kernels::linear_forward_in_bands(out, x, weight, terms, smallest_bands);
    kernels::linear_forward(whole, x, dequantized(weight, x.dtype()), terms);
    EXPECT_TRUE(same_bits(moved(out, {}), moved(whole, {}))) << x.dim(0) << " rows of " << name_of(x.dtype());
  }
};

INSTANTIATE_TEST_SUITE_P(, MatmulBands, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return info.param == DeviceKind::simt ? "simt" : "cuda"; });

TEST_P(MatmulBands, HaveTheBitsOfTheWholeWithAllTheirTerms) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    const int64_t m = dtype == DType::f32 ? 17 : 65;
    const LinearTerms terms{.lora_t = random(m, 8, dtype, 4),
                            .lora_b = random(n, 8, dtype, 5),
                            .bias = random(1, n, dtype, 6).view({n}),
                            .residual = random(m, n, dtype, 7)};
    for (const Weight& weight : weights(dtype)) expect_bits_of_the_whole(random(m, k, dtype, 8), weight, terms);
  }
}

TEST_P(MatmulBands, HaveTheBitsOfTheWholeWithAdaptersOfRows) {
  LinearTerms terms;
  terms.lora_rows = {
      {1, 40, random(39, 8, DType::bf16, 9), random(n, 8, DType::bf16, 10)},
      {40, 66, random(26, 5, DType::bf16, 11), kernels::pack_weight(random(n, 5, DType::bf16, 12), DType::bf16)}};
  expect_bits_of_the_whole(random(66, k, DType::bf16, 13), weights(DType::bf16)[0], terms);
}

// No kernel runs: the first launch fails, and by then all memory has been asked for.
TEST(MatmulBandsOnSimt, TakeNoMoreThanABandOfALargeWeight) {
  const Device simt{DeviceKind::simt};
  constexpr int64_t rows = 300000, columns = 512, band = 60160;  // five bands, of 235 tiles of 256 rows
  const RandomBlocks one(GgmlFormat::q4_0, 1, columns, DType::bf16, 1);
  const std::vector<const std::byte*> same(rows, one.rows[0]);
  kernels::Upload upload(simt);
  const GgmlWeight weight = GgmlWeight::send({GgmlFormat::q4_0, columns, same}, DType::bf16, simt, upload);
  upload.publish();
  const Tensor x = Tensor::empty({65, columns}, DType::bf16, simt), out = Tensor::empty({65, rows}, DType::bf16, simt);
  kernels::synchronize(simt);
  Allocator& memory = allocator_for(simt);
  memory.reset_peak();
  const int64_t before = memory.stats().total_live_bytes;
  simt::fail_nth(simt::Call::launch, 1);
  EXPECT_THROW(kernels::linear_forward(out, x, weight), Error);
  const int64_t taken = memory.stats().total_peak_bytes - before;
  EXPECT_GE(taken, band * columns * 2);
  EXPECT_LE(taken, kernels::most_band_bytes);
}

}  // namespace
}  // namespace lathe::testing
