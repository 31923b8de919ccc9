// A GGUF file's blocks on each device: the weight that they stand for, to the bit, whatever reads them.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "kernels/cuda/runtime.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gated/gated.h"
#include "kernels/matmul/products.h"
#include "kernels/simt/options.h"
#include "tests/kernels/ggml_blocks.h"

namespace lathe::testing {
namespace {

using kernels::LinearProduct;
using kernels::LinearTerms;
using kernels::moved;

std::vector<std::byte> bytes(const Tensor& tensor) {
  const Tensor here = moved(tensor, {});
  const auto* first = static_cast<const std::byte*>(here.raw());
  return {first, first + here.nbytes()};
}

bool of_256(GgmlFormat format) { return RandomBlocks::layout(format).elements == 256; }

class GgmlOnDevice : public ::testing::TestWithParam<std::tuple<DeviceKind, GgmlFormat>> {
 protected:
  void SetUp() override {
    if (const std::string why = kernels::why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {std::get<0>(GetParam())}; }
  GgmlFormat format() const { return std::get<1>(GetParam()); }
  // A half stage and one and a half, where blocks are that short; more of them than a block of threads has room for.
  std::vector<int64_t> depths() const {
    return of_256(format()) ? std::vector<int64_t>{256, 1280} : std::vector<int64_t>{32, 96, 1184};
  }
  std::vector<int64_t> depths(DType dtype) const {
    return dtype == DType::bf16 ? depths() : std::vector<int64_t>{depths().back()};
  }
  // Few, more than a tile of decoding has, more than codes are decoded for; of bf16 those in between, too.
  static std::vector<int64_t> row_counts(DType dtype) {
    return dtype == DType::bf16 ? std::vector<int64_t>{1, 3, 16, 17, 64, 65} : std::vector<int64_t>{1, 17, 65};
  }

  Tensor random(int64_t rows, int64_t columns, DType dtype, uint64_t seed) const {
    return moved(random_matrix(rows, columns, dtype, seed), device());
  }
  Tensor room(int64_t rows, int64_t columns, DType dtype) const {
    return Tensor::empty({rows, columns}, dtype, device());
  }
  // As a model is that was widened when it was loaded.
  Tensor widened(const RandomBlocks& blocks, DType dtype) const {
    const Tensor values = Tensor::empty({blocks.weight.rows(), blocks.weight.columns()}, dtype);
    blocks.weight.dequantize(values);
    return moved(values, device());
  }
};

INSTANTIATE_TEST_SUITE_P(, GgmlOnDevice,
                         ::testing::Combine(::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                                            ::testing::ValuesIn(all_formats)),
                         [](const auto& info) {
                           return to_string(Device{std::get<0>(info.param)}).substr(0, 4) + "_" +
                                  std::string(kernels::name_of(std::get<1>(info.param)));
                         });

TEST_P(GgmlOnDevice, RowsAreTheNumbersOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t k : depths()) {
      const RandomBlocks blocks(format(), 70, k, dtype, 1);
      const GgmlWeight weight = blocks.on(device());
      const Tensor all = room(70, k, dtype), some = room(9, k + 3, dtype).slice(1, 0, k);  // rows that lie anywhere
      weight.dequantize(all);
      EXPECT_EQ(bytes(all), bytes(widened(blocks, dtype))) << name_of(dtype) << ", k " << k;
      weight.dequantize(some, 30);
      const Tensor together = room(9, k, dtype);
      kernels::copy(together, some);
      EXPECT_EQ(bytes(together), bytes(all.slice(0, 30, 39))) << name_of(dtype) << ", k " << k;
    }
  }
}

// A row has the same bits among any number of others: one dense product serves all.
TEST_P(GgmlOnDevice, ProductsHaveTheBitsOfTheWidenedWeight) {
  constexpr int64_t n = 37, most = 65;  // a tile and a part of one
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const int64_t k : depths(dtype)) {
      const RandomBlocks blocks(format(), n, k, dtype, 2);
      const GgmlWeight weight = blocks.on(device());
      const Tensor x = random(most, k, dtype, 3), expected = room(most, n, DType::f32);
      kernels::linear_forward(expected, x, widened(blocks, dtype));
      for (const int64_t m : row_counts(dtype)) {
        const Tensor out = room(m, n, DType::f32);
        kernels::linear_forward(out, x.slice(0, 0, m), weight);
        EXPECT_EQ(bytes(out), bytes(expected.slice(0, 0, m))) << m << " rows of " << name_of(dtype) << ", k " << k;
      }
    }
  }
}

// No vectors of 16 bytes can be copied.
TEST_P(GgmlOnDevice, RowsThatLieAnywhereHaveTheBitsOfTheWidenedWeight) {
  constexpr int64_t n = 37, k = 256;
  const RandomBlocks blocks(format(), n, k, DType::bf16, 45);
  const Tensor x = random(3, k + 5, DType::bf16, 46).slice(1, 1, k + 1);
  const Tensor out = room(3, n, DType::bf16), expected = room(3, n, DType::bf16);
  kernels::linear_forward(out, x, blocks.on(device()));
  kernels::linear_forward(expected, x, widened(blocks, DType::bf16));
  EXPECT_EQ(bytes(out), bytes(expected));
}

TEST_P(GgmlOnDevice, TermsJoinAsTheyJoinTheWidenedWeight) {
  constexpr int64_t n = 37, k = 512, rank = 72, most = 65;  // more than a stage
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    const RandomBlocks blocks(format(), n, k, dtype, 4);
    const GgmlWeight weight = blocks.on(device());
    const Tensor x = random(most, k, dtype, 5), expected = room(most, n, dtype);
    const LinearTerms all{.lora_t = random(most, rank, dtype, 6),
                          .lora_b = random(n, rank, dtype, 7),
                          .bias = random(1, n, dtype, 8).view({n}),
                          .residual = random(most, n, dtype, 9)};
    kernels::linear_forward(expected, x, widened(blocks, dtype), all);
    for (const int64_t m : {1, 5, 17, 65}) {
      LinearTerms terms = all;
      terms.lora_t = all.lora_t.slice(0, 0, m);
      terms.residual = all.residual.slice(0, 0, m);
      const Tensor out = room(m, n, dtype);
      kernels::linear_forward(out, x.slice(0, 0, m), weight, terms);
      EXPECT_EQ(bytes(out), bytes(expected.slice(0, 0, m))) << m << " rows of " << name_of(dtype);
    }
  }
}

TEST_P(GgmlOnDevice, RowsWithAdaptersOfTheirOwnHaveTheBitsOfTheWidenedWeight) {
  constexpr int64_t n = 40, k = 256;
  const RandomBlocks blocks(format(), n, k, DType::bf16, 10);
  const Tensor dense = widened(blocks, DType::bf16);
  for (const int64_t m : {6, 20}) {
    const Tensor x = random(m, k, DType::bf16, 11);
    LinearTerms terms;
    terms.lora_rows = {{1, 3, random(2, 8, DType::bf16, 12), random(n, 8, DType::bf16, 13)},
                       {3, m, random(m - 3, 5, DType::bf16, 14), random(n, 5, DType::bf16, 15)}};
    const Tensor out = room(m, n, DType::bf16), expected = room(m, n, DType::bf16);
    kernels::linear_forward(out, x, blocks.on(device()), terms);
    kernels::linear_forward(expected, x, dense, terms);
    EXPECT_EQ(bytes(out), bytes(expected)) << m << " rows";
  }
}

TEST_P(GgmlOnDevice, GradientsAreThoseOfTheWidenedWeight) {
  constexpr int64_t n = 37, k = 256;
  const RandomBlocks blocks(format(), n, k, DType::bf16, 16);
  const Tensor dense = widened(blocks, DType::bf16);
  for (const int64_t m : {2, 19}) {
    const Tensor grad_out = random(m, n, DType::bf16, 17);
    const Tensor grad_x = room(m, k, DType::bf16), expected = room(m, k, DType::bf16);
    kernels::linear_input_gradient({.grad_x = grad_x, .grad_out = grad_out, .weight = blocks.on(device())});
    kernels::linear_input_gradient({.grad_x = expected, .grad_out = grad_out, .weight = dense});
    EXPECT_EQ(bytes(grad_x), bytes(expected)) << m << " rows";
  }
}

TEST_P(GgmlOnDevice, EmbeddingsAreRowsOfTheWidenedWeight) {
  const int64_t k = depths().back();
  const RandomBlocks blocks(format(), 70, k, DType::bf16, 18);
  const GgmlWeight weight = blocks.on(device());
  const Tensor dense = widened(blocks, DType::bf16), out = room(4, k, DType::bf16), expected = room(4, k, DType::bf16);
  const auto ids = [](std::vector<int32_t> of) { return Tensor::of<int32_t>(of, {4}); };
  kernels::embedding_forward(expected, dense, ids({69, 0, 33, 0}));
  kernels::embedding_forward(out, weight, ids({69, 0, 33, 0}));
  EXPECT_EQ(bytes(out), bytes(expected));
  kernels::fill(out, 0.0);
  kernels::embedding_forward(out, weight, moved(ids({69, 0, 33, 0}), device()));
  EXPECT_EQ(bytes(out), bytes(expected));
  EXPECT_THROW(kernels::embedding_forward(out, weight, ids({0, 1, 70, 2})), ShapeError);
  kernels::embedding_forward(out, weight, moved(ids({0, -1, 70, 2}), device()));
  const Tensor wide = kernels::cast(moved(out, {}), DType::f32);
  for (int64_t i = 0; i < 4 * k; ++i)
    EXPECT_EQ(std::isnan(wide.data<float>()[i]), i / k == 1 || i / k == 2) << "row " << i / k;
}

TEST_P(GgmlOnDevice, SeveralProductsHaveTheBitsOfTheirOwn) {
  constexpr int64_t k = 512;
  const GgmlFormat other = format() == GgmlFormat::q6_k ? GgmlFormat::q4_k : GgmlFormat::q6_k;
  for (const std::vector<GgmlFormat>& formats :
       {std::vector{format(), format(), format()}, {format(), other, format()}, {other, format()}}) {
    for (const DType dtype : {DType::bf16, DType::f32}) {
      for (const int64_t m : {1, 5, 17}) {
        const Tensor x = random(m, k, dtype, 19);
        std::vector<LinearProduct> products;
        std::vector<Tensor> expected;
        for (const GgmlFormat each : formats) {
          const auto seed = 20 + static_cast<uint64_t>(products.size());
          const int64_t n = 33 + 8 * static_cast<int64_t>(products.size());
          const RandomBlocks blocks(each, n, k, dtype, seed);
          LinearTerms terms;
          if (products.size() == 1)
            terms = {.lora_t = random(m, 8, dtype, 30),
                     .lora_b = random(n, 8, dtype, 31),
                     .bias = random(1, n, dtype, 32).view({n})};
          products.push_back({room(m, n, dtype), blocks.on(device()), terms});
          expected.push_back(room(m, n, dtype));
          kernels::linear_forward(expected.back(), x, widened(blocks, dtype), terms);
        }
        kernels::linear_forward_each(x, products);
        for (size_t i = 0; i < products.size(); ++i)
          EXPECT_EQ(bytes(products[i].out), bytes(expected[i])) << m << " rows of " << name_of(dtype) << ", " << i;
      }
    }
  }
}

TEST_P(GgmlOnDevice, AGatedProductHasTheBitsOfItsParts) {
  constexpr int64_t k = 512, n = 45;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const GgmlWeight gate = RandomBlocks(format(), n, k, dtype, 47).on(device()),
                     up = RandomBlocks(format(), n, k, dtype, 48).on(device());
    for (const int64_t m : {1, 18}) {
      const Tensor x = random(m, k, dtype, 49), out = room(m, n, dtype), expected = room(m, n, dtype);
      const LinearProduct opened{room(m, n, dtype), gate}, raised{room(m, n, dtype), up};
      kernels::linear_forward(opened.out, x, gate);
      kernels::linear_forward(raised.out, x, up);
      kernels::swiglu_forward(expected, opened.out, raised.out);
      kernels::gated_linear_forward(out, x, opened, raised, kernels::Activation::silu);
      EXPECT_EQ(bytes(out), bytes(expected)) << m << " rows of " << name_of(dtype);
    }
  }
}

TEST_P(GgmlOnDevice, TakesTheBytesOfTheFile) {
  const RandomBlocks blocks(format(), 64, 512, DType::bf16, 40);
  // Of 256 neighbours: codes take 4 bits, MXFP4's scales two bytes.
  const int64_t wider = format() == GgmlFormat::q2_k    ? 64
                        : format() == GgmlFormat::q3_k  ? 32
                        : format() == GgmlFormat::mxfp4 ? 8
                                                        : 0;
  EXPECT_EQ(blocks.on(device()).nbytes(),
            std::ssize(blocks.bytes) + 64 * 512 / 256 * (wider + RandomBlocks::unpacked_scales(format())));
}

TEST_P(GgmlOnDevice, IsRefusedBesideWhatLiesElsewhere) {
  const RandomBlocks blocks(format(), 8, 256, DType::bf16, 41);
  const GgmlWeight weight = blocks.on(device());
  const Tensor x = random(2, 256, DType::bf16, 42), out = room(2, 8, DType::bf16);
  EXPECT_NO_THROW(kernels::linear_forward(out, x, weight));
  EXPECT_THROW(kernels::linear_forward(out, x, blocks.weight), ShapeError);
  EXPECT_THROW(kernels::linear_forward(moved(out, {}), moved(x, {}), weight), ShapeError);
  EXPECT_THROW(kernels::linear_forward(out, x, weight.for_dtype(DType::f16)), ShapeError);
}

TEST(GgmlOnSimt, ProductsOfOneFormatAreOneLaunch) {
  const Device simt{DeviceKind::simt};
  const RandomBlocks first(GgmlFormat::q4_k, 32, 256, DType::bf16, 43),
      second(GgmlFormat::q6_k, 32, 256, DType::bf16, 44);
  const GgmlWeight q4_k = first.on(simt), q6_k = second.on(simt);
  const Tensor x = Tensor::zeros({1, 256}, DType::bf16, simt);
  const auto product = [&](const GgmlWeight& weight) {
    return LinearProduct{Tensor::empty({1, 32}, DType::bf16, simt), weight};
  };
  const auto launches = [&](const auto& run) {
    kernels::synchronize(simt);
    const int64_t before = simt::launches_run();
    run();
    kernels::synchronize(simt);
    return simt::launches_run() - before;
  };
  const std::vector<LinearProduct> same{product(q4_k), product(q4_k), product(q4_k)},
      mixed{product(q4_k), product(q4_k), product(q6_k)};
  EXPECT_EQ(launches([&] { kernels::linear_forward_each(x, same); }), 1);
  EXPECT_EQ(launches([&] { kernels::linear_forward_each(x, mixed); }), 2);
  const auto gated = [&](const LinearProduct& gate, const LinearProduct& up) {
    kernels::gated_linear_forward(Tensor::empty({1, 32}, DType::bf16, simt), x, gate, up, kernels::Activation::silu);
  };
  EXPECT_EQ(launches([&] { gated(same[0], same[1]); }), 1);
  EXPECT_EQ(launches([&] { gated(mixed[0], mixed[2]); }), 3);
}

}  // namespace
}  // namespace lathe::testing
