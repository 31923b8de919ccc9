// Products with quantised weights: against the reference, to the bit those with the dequantised weight, and what they
// must refuse.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/simd/isa.h"
#include "tests/kernels/quantized_matmul_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

using kernels::Isa;
using kernels::QuantizedFormat;
using kernels::QuantizedWeight;

LATHE_CHECK_OPERATIONS(quantized_matmul_operations());

Tensor random_matrix(int64_t rows, int64_t columns, DType dtype, uint64_t seed) {
  const Tensor values = Tensor::empty({rows, columns}, DType::f32);
  RandomStream random(seed, RandomPurpose::test);
  for (float& v : values.span<float>()) v = random.normal();
  return kernels::cast(values, dtype);
}

QuantizedWeight quantized(const Tensor& weight, QuantizedFormat format) {
  if (format == QuantizedFormat::nf4) return QuantizedWeight::pack(kernels::quantize_nf4(weight));
  return QuantizedWeight::pack(kernels::quantize_int8(weight));
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.nbytes())) == 0;
}

class QuantizedBits : public ::testing::TestWithParam<std::tuple<Isa, QuantizedFormat, DType>> {
 protected:
  void SetUp() override {
    if (!kernels::machine_has(isa())) GTEST_SKIP() << "this machine lacks it";
    kernels::set_active_isa(isa());
  }
  void TearDown() override { kernels::set_active_isa(active_); }
  Isa isa() const { return std::get<0>(GetParam()); }
  QuantizedFormat format() const { return std::get<1>(GetParam()); }
  DType dtype() const { return std::get<2>(GetParam()); }

 private:
  Isa active_ = kernels::active_isa();
};

// What lets a model be trained on codes, merged and served dense without a bit of difference: from one row, dequantised
// in registers, to many tiles of rows that share dequantised slabs, over several chains along k.
TEST_P(QuantizedBits, ProductsAreThoseWithTheDequantisedWeight) {
  const int64_t n = 70, k = 2080;  // five chains in f32, three in bf16
  const QuantizedWeight weight = quantized(random_matrix(n, k, DType::f32, 1), format());
  const Tensor dense = Tensor::empty({n, k}, dtype());
  weight.dequantize(dense);
  for (const int64_t m : {1, 2, 3, 4, 5, 14, 15, 33}) {
    const Tensor x = random_matrix(m, k, dtype(), 2), lora_t = random_matrix(m, 4, dtype(), 3),
                 lora_b = random_matrix(n, 4, dtype(), 4);
    const Tensor out = Tensor::empty({m, n}, dtype()), expected = Tensor::empty({m, n}, dtype());
    kernels::linear_forward(out, x, weight, {.lora_t = lora_t, .lora_b = lora_b});
    kernels::linear_forward(expected, x, dense, {.lora_t = lora_t, .lora_b = lora_b});
    EXPECT_TRUE(same_bits(out, expected)) << m << " rows";
  }
}

TEST_P(QuantizedBits, GradientsAreThoseWithTheDequantisedWeight) {
  const int64_t n = 1093, k = 96;  // not a multiple of anything
  const QuantizedWeight weight = quantized(random_matrix(n, k, DType::f32, 5), format());
  const Tensor dense = Tensor::empty({n, k}, dtype());
  weight.dequantize(dense);
  for (const int64_t m : {1, 6, 17}) {
    const Tensor grad_out = random_matrix(m, n, dtype(), 6);
    const Tensor grad_x = Tensor::empty({m, k}, dtype()), expected = Tensor::empty({m, k}, dtype());
    kernels::linear_input_gradient({.grad_x = grad_x, .grad_out = grad_out, .weight = weight});
    kernels::linear_input_gradient({.grad_x = expected, .grad_out = grad_out, .weight = dense});
    EXPECT_TRUE(same_bits(grad_x, expected)) << m << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, QuantizedBits,
                         ::testing::Combine(::testing::ValuesIn(kernels::every_isa),
                                            ::testing::Values(QuantizedFormat::nf4, QuantizedFormat::int8),
                                            ::testing::Values(DType::f32, DType::bf16)),
                         [](const auto& info) {
                           return std::string(kernels::name_of(std::get<0>(info.param))) +
                                  (std::get<1>(info.param) == QuantizedFormat::nf4 ? "_nf4_" : "_int8_") +
                                  std::string(name_of(std::get<2>(info.param)));
                         });

// On a device, too, from codes in tiles and from a dequantised weight: the bits of the dense product.
TEST(QuantizedOnDevices, ProductsAreThoseWithTheDequantisedWeight) {
  const Device simt{DeviceKind::simt};
  const auto moved = [](const Tensor& tensor, Device device) {
    const Tensor result = Tensor::empty(tensor.shape(), tensor.dtype(), device);
    kernels::copy_bytes(device, result.raw(), tensor.device(), tensor.raw(), tensor.nbytes());
    return result;
  };
  const int64_t n = 40, k = 192;
  const Tensor values = moved(random_matrix(n, k, DType::f32, 9), simt);
  for (const QuantizedFormat format : {QuantizedFormat::nf4, QuantizedFormat::int8}) {
    const QuantizedWeight weight = quantized(values, format);
    const Tensor dense = Tensor::empty({n, k}, DType::bf16, simt);
    weight.dequantize(dense);
    for (const int64_t m : {1, 16, 17, 64, 65}) {
      const Tensor x = moved(random_matrix(m, k, DType::bf16, 10), simt);
      const Tensor out = Tensor::empty({m, n}, DType::f32, simt), expected = Tensor::empty({m, n}, DType::f32, simt);
      kernels::linear_forward(out, x, weight);
      kernels::linear_forward(expected, x, dense);
      EXPECT_TRUE(same_bits(moved(out, {}), moved(expected, {}))) << m << " rows";
    }
  }
}

// Panels hold what the weight held: dequantised from them or from the codes as they came.
TEST(QuantizedWeight, PanelsStandForTheSameNumbers) {
  const Tensor weight = random_matrix(45, 192, DType::f32, 7);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Tensor expected = Tensor::empty({45, 192}, dtype), out = Tensor::empty({45, 192}, dtype);
    for (const int64_t block_size : {32, 64, 128, 4096}) {
      const kernels::Nf4Weight nf4 = kernels::quantize_nf4(weight, block_size);
      kernels::nf4_dequantize(expected, nf4);
      QuantizedWeight::pack(nf4).dequantize(out);
      EXPECT_TRUE(same_bits(out, expected)) << block_size;
      const Tensor part = Tensor::empty({9, 192}, dtype);
      QuantizedWeight::pack(nf4).dequantize(part, 30);
      EXPECT_TRUE(same_bits(part, expected.slice(0, 30, 39)));
    }
    const kernels::Int8Weight int8 = kernels::quantize_int8(weight);
    kernels::int8_dequantize(expected, int8);
    QuantizedWeight::pack(int8).dequantize(out);
    EXPECT_TRUE(same_bits(out, expected));
  }
}

TEST(QuantizedWeight, TakesTheBytesItSays) {
  const Tensor weight = random_matrix(64, 512, DType::f32, 8);
  EXPECT_EQ(quantized(weight, QuantizedFormat::nf4).nbytes() * 8, 64 * 512 * 9 / 2);
  EXPECT_EQ(quantized(weight, QuantizedFormat::int8).nbytes() * 8, 64 * 512 * 17 / 2);
}

TEST(QuantizedWeight, RefusesWhatDoesNotFit) {
  const auto pack_nf4 = [](int64_t columns, int64_t block_size) {
    return QuantizedWeight::pack(kernels::quantize_nf4(Tensor::zeros({3, columns}, DType::f32), block_size));
  };
  EXPECT_THROW(pack_nf4(48, 64), ShapeError);
  EXPECT_NO_THROW(pack_nf4(96, 64));
  EXPECT_THROW(QuantizedWeight::pack(kernels::quantize_int8(Tensor::zeros({3, 48}, DType::f32))), ShapeError);
  const QuantizedWeight weight = pack_nf4(64, 64);
  const Tensor x = Tensor::zeros({2, 64}, DType::f32), out = Tensor::zeros({2, 3}, DType::f32);
  EXPECT_NO_THROW(kernels::linear_forward(out, x, weight));
  EXPECT_THROW(kernels::linear_forward(out, Tensor::zeros({2, 32}, DType::f32), weight), ShapeError);
  EXPECT_THROW(kernels::linear_forward(Tensor::zeros({2, 4}, DType::f32), x, weight), ShapeError);
  EXPECT_THROW(kernels::linear_forward(out, x, QuantizedWeight{}), ShapeError);
  EXPECT_THROW(weight.dequantize(Tensor::zeros({4, 64}, DType::f32)), ShapeError);
  const Tensor rows = Tensor::zeros({5, 64}, DType::bf16), five = Tensor::zeros({5, 3}, DType::bf16);
  EXPECT_THROW(kernels::quantized_gemv(five, rows, weight), ShapeError);
  EXPECT_NO_THROW(kernels::quantized_gemv(five.slice(0, 0, 4), rows.slice(0, 0, 4), weight));
}

}  // namespace
}  // namespace lathe::testing
