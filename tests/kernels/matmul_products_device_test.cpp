// Several products of one input on each device, in one launch where it has a body: the bits of one after the other.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/gated/gated.h"
#include "kernels/matmul/products.h"
#include "kernels/simt/options.h"
#include "tests/kernels/matmul_products_cases.h"
#include "tests/support/hopper.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {
namespace {

LATHE_CHECK_OPERATIONS(lathe::testing::matmul_products_operations());

constexpr int64_t k = 104;  // a stage and a part of one

class MatmulProductsDevice : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }
  Tensor random_matrix(int64_t rows, int64_t columns, DType dtype) {
    const Tensor wide = Tensor::empty({rows, columns}, DType::f32);
    for (float& value : wide.span<float>()) value = static_cast<float>(random_.below(20001)) * 1e-4f - 1.0f;
    return moved(cast(wide, dtype), device());
  }
  Tensor room(int64_t rows, int64_t columns, DType dtype) const {
    return Tensor::empty({rows, columns}, dtype, device());
  }
  static std::vector<std::byte> bytes(const Tensor& tensor) {
    std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
    copy_bytes({}, result.data(), tensor.device(), tensor.raw(), tensor.nbytes());
    return result;
  }
  // Of the gated product of x with two weights of n rows.
  template <class Weight>
  void expect_the_bits_of_parts(const Tensor& x, const Weight& gate, const Weight& up, int64_t n) const {
    const int64_t rows = x.dim(0);
    const DType dtype = x.dtype();
    const Tensor opened = room(rows, n, dtype), raised = room(rows, n, dtype), out = room(rows, n, dtype);
    linear_forward(opened, x, gate);
    linear_forward(raised, x, up);
    for (const Activation activation : {Activation::silu, Activation::gelu_tanh}) {
      const Tensor expected = room(rows, n, dtype);
      activation == Activation::silu ? swiglu_forward(expected, opened, raised)
                                     : geglu_forward(expected, opened, raised);
      gated_linear_forward(out, x, {room(rows, n, dtype), gate}, {room(rows, n, dtype), up}, activation);
      EXPECT_EQ(bytes(out), bytes(expected)) << name_of(dtype) << ", " << rows << " rows, " << n << " columns";
    }
  }

 private:
  RandomStream random_{1, RandomPurpose::test};
};

INSTANTIATE_TEST_SUITE_P(, MatmulProductsDevice, ::testing::Values(DeviceKind::cpu, DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return to_string(Device{info.param}).substr(0, 4); });

// Columns that fill multiprocessors in tiles of 32, and some that do not; a part of a tile; one row to a whole tile of
// them, and more rows than have a body.
TEST_P(MatmulProductsDevice, each_product_has_the_bits_of_its_own) {
  std::vector<std::vector<int64_t>> widths{{40, 24, 9}, {7, 16}, {33, 64}};
  if (device().kind == DeviceKind::cuda) widths.push_back({2048, 512, 520});
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    if (dtype == DType::f16 && device().kind == DeviceKind::cpu) continue;
    for (const int64_t rows : {1, 5, 16, 17}) {
      const Tensor x = random_matrix(rows, k, dtype);
      for (const std::vector<int64_t>& columns : widths) {
        std::vector<LinearProduct> products;
        std::vector<Tensor> expected;
        for (const int64_t n : columns) {
          const Tensor weight = random_matrix(n, k, dtype);
          const Tensor bias = n == 24 ? random_matrix(1, n, dtype).view({n}) : Tensor();
          // An even number of rows by weights that are at rest.
          products.push_back({room(rows, n, dtype),
                              rows % 2 == 0 ? Weight(pack_weight(weight, dtype)) : Weight(weight),
                              {.bias = bias}});
          expected.push_back(room(rows, n, dtype));
          linear_forward(expected.back(), x, weight, {.bias = bias});
        }
        linear_forward_each(x, products);
        for (size_t i = 0; i < products.size(); ++i)
          EXPECT_EQ(bytes(products[i].out), bytes(expected[i]))
              << name_of(dtype) << ", " << rows << " rows, product " << i << " of " << columns[i] << " columns";
      }
    }
  }
}

// nf4 and int8, with an adapter, a bias and a residual, and in several formats.
TEST_P(MatmulProductsDevice, products_in_codes_have_the_bits_of_their_own) {
  constexpr int64_t inputs = 192, rank = 24;
  using Formats = std::vector<QuantizedFormat>;
  constexpr QuantizedFormat nf4 = QuantizedFormat::nf4, int8 = QuantizedFormat::int8;
  for (const Formats& formats :
       {Formats{nf4, nf4, nf4}, Formats{int8, int8, int8}, Formats{nf4, nf4}, Formats{nf4, int8}}) {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      if (dtype == DType::f16 && device().kind == DeviceKind::cpu) continue;
      for (const int64_t rows : {1, 5, 17}) {
        const Tensor x = random_matrix(rows, inputs, dtype);
        std::vector<LinearProduct> products;
        std::vector<Tensor> expected;
        for (const QuantizedFormat format : formats) {
          const int64_t n = 33 + 8 * static_cast<int64_t>(products.size());  // more than one tile, and a part of one
          const QuantizedWeight weight = QuantizedWeight::quantize(random_matrix(n, inputs, dtype), format);
          LinearTerms terms;
          if (products.size() == 1)
            terms = {.lora_t = random_matrix(rows, rank, dtype),
                     .lora_b = random_matrix(n, rank, dtype),
                     .bias = random_matrix(1, n, dtype).view({n}),
                     .residual = random_matrix(rows, n, dtype)};
          products.push_back({room(rows, n, dtype), weight, terms});
          expected.push_back(room(rows, n, dtype));
          linear_forward(expected.back(), x, weight, terms);
        }
        linear_forward_each(x, products);
        for (size_t i = 0; i < products.size(); ++i)
          EXPECT_EQ(bytes(products[i].out), bytes(expected[i]))
              << name_of(dtype) << ", " << rows << " rows, product " << i;
      }
    }
  }
}

TEST_P(MatmulProductsDevice, a_gated_product_has_the_bits_of_its_parts) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    if (dtype == DType::f16 && device().kind == DeviceKind::cpu) continue;
    for (const int64_t rows : {1, 16, 17}) {
      for (const int64_t n : {16, 43, 8200}) {
        if (n > 43 && device().kind != DeviceKind::cuda) continue;
        const Tensor x = random_matrix(rows, k, dtype);
        const Tensor gate = random_matrix(n, k, dtype), up = random_matrix(n, k, dtype);
        expect_the_bits_of_parts(x, gate, up, n);
        if (rows == 16) expect_the_bits_of_parts(x, pack_weight(gate, dtype), pack_weight(up, dtype), n);
      }
    }
  }
}

// A row, a tile of them, more, and more than have a body; a part of a tile of columns.
TEST_P(MatmulProductsDevice, a_gated_product_in_codes_has_the_bits_of_its_parts) {
  constexpr int64_t inputs = 192;
  for (const QuantizedFormat format : {QuantizedFormat::nf4, QuantizedFormat::int8}) {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      if (dtype == DType::f16 && device().kind == DeviceKind::cpu) continue;
      for (const auto& [rows, n] : {std::pair(1, 64), std::pair(16, 43), std::pair(21, 43), std::pair(65, 43)}) {
        const Tensor x = random_matrix(rows, inputs, dtype);
        const auto weight = [&](int64_t outputs) {
          return QuantizedWeight::quantize(random_matrix(outputs, inputs, dtype), format);
        };
        const QuantizedWeight gate = weight(n), up = weight(n);
        expect_the_bits_of_parts(x, gate, up, n);
      }
    }
  }
}

TEST(MatmulProductsOnSimt, a_few_rows_are_one_launch) {
  const Device simt{DeviceKind::simt};
  const auto zeros = [&](int64_t rows) { return Tensor::zeros({rows, 64}, DType::bf16, simt); };
  const auto out = [&](int64_t columns) { return Tensor::empty({1, columns}, DType::bf16, simt); };
  const auto launches = [&](const auto& run) {
    synchronize(simt);
    const int64_t before = simt::launches_run();
    run();
    synchronize(simt);
    return simt::launches_run() - before;
  };
  const Tensor x = zeros(1), q = zeros(32), k_and_v = zeros(16);
  EXPECT_EQ(launches([&] {
              linear_forward_each(x, std::vector<LinearProduct>{{out(32), q}, {out(16), k_and_v}, {out(16), k_and_v}});
            }),
            1);
  EXPECT_EQ(launches([&] { gated_linear_forward(out(32), x, {out(32), q}, {out(32), q}, Activation::silu); }), 1);
  for (const QuantizedFormat format : {QuantizedFormat::nf4, QuantizedFormat::int8}) {
    const QuantizedWeight codes = QuantizedWeight::quantize(q, format);
    const LinearProduct one{out(32), codes}, two{out(32), codes}, three{out(32), codes};
    EXPECT_EQ(launches([&] { linear_forward_each(x, std::vector<LinearProduct>{one, two, three}); }), 1);
    EXPECT_EQ(launches([&] { gated_linear_forward(out(32), x, one, two, Activation::silu); }), 1);
    const LinearProduct biased{out(32), codes, {.bias = Tensor::zeros({32}, DType::bf16, simt)}};
    EXPECT_EQ(launches([&] { gated_linear_forward(out(32), x, one, biased, Activation::silu); }), 2);
  }
}

// On simt as a card of sm_90: what the bodies by wgmma give, of weights that are at rest, and those by mma.sync.
class MatmulProductsOnHopper : public ::testing::Test {
 protected:
  Tensor random_matrix(int64_t rows, int64_t columns, DType dtype) {
    const Tensor wide = Tensor::empty({rows, columns}, DType::f32);
    for (float& value : wide.span<float>()) value = static_cast<float>(random_.below(20001)) * 1e-4f - 1.0f;
    return moved(cast(wide, dtype), {DeviceKind::simt});
  }
  static std::vector<std::byte> bytes(const Tensor& tensor) {
    std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
    copy_bytes({}, result.data(), tensor.device(), tensor.raw(), tensor.nbytes());
    return result;
  }
  void expect_joined(const std::vector<int64_t>& columns, int64_t rows, DType dtype, simt::FiberOrder order) {
    const Tensor x = random_matrix(rows, k, dtype);
    std::vector<LinearProduct> products;
    for (const int64_t n : columns)
      products.push_back({Tensor::empty({rows, n}, dtype, x.device()),
                          pack_weight(random_matrix(n, k, dtype), dtype),
                          {.bias = n % 2 == 0 ? random_matrix(1, n, dtype).view({n}) : Tensor()}});
    const auto run = [&] {
      for (const LinearProduct& each : products) fill(each.out, 0.0);
      linear_forward_each(x, products);
      std::vector<std::vector<std::byte>> result;
      for (const LinearProduct& each : products) result.push_back(bytes(each.out));
      return result;
    };
    const auto expected = run();
    const testing::Hopper hopper(order);
    EXPECT_EQ(run(), expected) << name_of(dtype) << ", " << rows << " rows, " << columns[0] << " columns first";
  }
  void expect_gated(int64_t n, int64_t rows, DType dtype, Activation activation, simt::FiberOrder order) {
    const Tensor x = random_matrix(rows, k, dtype);
    const Weight gate = pack_weight(random_matrix(n, k, dtype), dtype),
                 up = pack_weight(random_matrix(n, k, dtype), dtype);
    const auto room = [&] { return Tensor::empty({rows, n}, dtype, x.device()); };
    const Tensor out = room();
    const auto run = [&] {
      fill(out, 0.0);
      gated_linear_forward(out, x, {room(), gate}, {room(), up}, activation);
      return bytes(out);
    };
    const auto expected = run();
    const testing::Hopper hopper(order);
    EXPECT_EQ(run(), expected) << name_of(dtype) << ", " << rows << " rows, " << n << " columns";
  }

 private:
  RandomStream random_{2, RandomPurpose::test};
};

TEST_F(MatmulProductsOnHopper, few_rows_by_several_weights_have_the_bits_of_mma_sync) {
  expect_joined({40, 24, 9}, 1, DType::bf16, simt::FiberOrder::ascending);
  expect_joined({7, 16}, 16, DType::f16, simt::FiberOrder::descending);
  expect_joined({200, 8, 8}, 9, DType::bf16, simt::FiberOrder::shuffled);
  expect_joined({3, 5, 2}, 8, DType::bf16, simt::FiberOrder::shuffled);
}
TEST_F(MatmulProductsOnHopper, gated_products_of_few_rows_have_the_bits_of_mma_sync) {
  expect_gated(16, 1, DType::bf16, Activation::silu, simt::FiberOrder::ascending);
  expect_gated(43, 16, DType::f16, Activation::gelu_tanh, simt::FiberOrder::descending);
  expect_gated(72, 8, DType::bf16, Activation::gelu_tanh, simt::FiberOrder::shuffled);
  expect_gated(200, 9, DType::bf16, Activation::silu, simt::FiberOrder::shuffled);
}

TEST_P(MatmulProductsDevice, what_does_not_fit_is_named) {
  const Tensor x = random_matrix(2, k, DType::bf16), weight = random_matrix(8, k + 8, DType::bf16);
  const Tensor fits = random_matrix(8, k, DType::bf16);
  EXPECT_THROW(linear_forward_each(
                   x, std::vector<LinearProduct>{{room(2, 8, DType::bf16), fits}, {room(2, 8, DType::bf16), weight}}),
               ShapeError);
  EXPECT_THROW(gated_linear_forward(room(2, 9, DType::bf16), x, {room(2, 8, DType::bf16), fits},
                                    {room(2, 8, DType::bf16), fits}, Activation::silu),
               ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
