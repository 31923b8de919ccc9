// Products with the blocks of GGUF files: against plain sums of integers in double, the same bits in every instruction
// set and batch, and what they must refuse.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gated/gated.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/products.h"
#include "kernels/simd/isa.h"
#include "tests/kernels/ggml_blocks.h"

namespace lathe::testing {
namespace {

Tensor indices(const std::vector<int32_t>& ids) { return Tensor::of<int32_t>(ids, {std::ssize(ids)}); }

// Activations as the operation defines them: integers to 32767 and a scale for each 32.
std::vector<double> quantised(const Tensor& x) {
  const Tensor wide = kernels::cast(x, DType::f32);
  std::vector<double> values(wide.span<float>().begin(), wide.span<float>().end());
  for (size_t first = 0; first < values.size(); first += 32) {
    float largest = 0;
    for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(static_cast<float>(values[first + i])));
    const float scale = largest / 32767.0f, factor = 32767.0f / largest;
    for (size_t i = 0; i < 32; ++i)
      values[first + i] = static_cast<double>(scale) * std::nearbyint(static_cast<float>(values[first + i]) * factor);
  }
  return values;
}

class GgmlProducts : public ::testing::TestWithParam<GgmlFormat> {};

// Against Σ value · activation in double. In f32: a block's scale and its activations' are multiplied (one rounding of
// 2^-24), its sum of integers is rounded to f32 (another), and each block adds one fused multiply-add, two with a
// minimum, whose rounding is of what has been summed so far: at most Σ |terms|. So the error is at most
// (2 · blocks + 4) · 2^-24 · Σ_b (|scale · Σ| + |minimum · Σ|); with 16 neighbours to a scale twice the blocks.
TEST_P(GgmlProducts, AreTheSumsOfTheCodesTimesQuantisedActivations) {
  const int64_t n = 35, k = 512;
  const RandomBlocks blocks(GetParam(), n, k, DType::f32, 1);
  const Tensor dense = Tensor::empty({n, k}, DType::f32);
  blocks.weight.dequantize(dense);
  for (const int64_t m : {1, 3, 5, 29}) {
    const Tensor x = random_matrix(m, k, DType::f32, 2), out = Tensor::empty({m, n}, DType::f32);
    kernels::linear_forward(out, x, blocks.weight);
    const std::vector<double> a = quantised(x);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0, magnitude = 0;
        for (int64_t at = 0; at < k; ++at) {
          // A weight with a minimum is its f32 rounding here, off by 2^-24 of it: within the same bound.
          const double term = static_cast<double>(dense.data<float>()[j * k + at]) * a[static_cast<size_t>(i * k + at)];
          sum += term, magnitude += std::abs(term);
        }
        // Codes and minimum may cancel in a value: 16 times its magnitude covers what each of them adds.
        const int64_t roundings = 4 * k / 32 + 4;
        const double bound = static_cast<double>(roundings) * std::ldexp(16 * magnitude, -24);
        EXPECT_NEAR(out.data<float>()[i * n + j], sum, bound) << m << " rows: " << i << ", " << j;
      }
  }
}

TEST_P(GgmlProducts, HaveTheSameBitsInEveryInstructionSetBatchAndThreadCount) {
  const int64_t n = 83, k = 1792, most = 300;  // 56 blocks: more than are unpacked at a time
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const RandomBlocks blocks(GetParam(), n, k, dtype, 3);
    const Tensor x = random_matrix(most, k, dtype, 4), lora_t = random_matrix(most, 5, dtype, 5),
                 lora_b = random_matrix(n, 5, dtype, 6), bias = random_matrix(1, n, dtype, 7).view({n}),
                 residual = random_matrix(most, n, dtype, 8);
    const auto product = [&](int64_t first, int64_t last) {
      const Tensor out = Tensor::empty({last - first, n}, dtype);
      kernels::linear_forward(out, x.slice(0, first, last), blocks.weight,
                              {.lora_t = lora_t.slice(0, first, last),
                               .lora_b = lora_b,
                               .bias = bias,
                               .residual = residual.slice(0, first, last)});
      return out;
    };
    const Tensor expected = product(0, most);
    const int threads = thread_count();
    for (const Isa isa : all_sets) {
      if (!kernels::machine_has(isa)) continue;
      const ActiveIsa active(isa);
      for (const int count : {1, 2}) {
        set_thread_count(count);
        for (const auto& [first, last] :
             {std::pair{7, 8}, {8, 10}, {10, 13}, {20, 24}, {30, 37}, {60, 68}, {70, 82}, {40, 71}, {0, 300}})
          EXPECT_TRUE(same_bits(product(first, last), expected.slice(0, first, last)))
              << kernels::name_of(isa) << ", rows " << first << " to " << last << ", " << count << " threads";
      }
      set_thread_count(threads);
    }
  }
}

// What a set's exact sums have room for: all codes of one sign at their largest and activations at ±32767 or just
// below, blocks of zeros among them, in batches that fill no tile; the last sum of an odd number of blocks; more panels
// than are unpacked at a time.
TEST_P(GgmlProducts, OfTheLargestCodesAndActivationsHaveTheSameBitsInEveryInstructionSet) {
  const int64_t n = 531, most = 140, k = RandomBlocks::layout(GetParam()).elements == 256 ? 1280 : 1120;
  RandomBlocks blocks(GetParam(), n, k, DType::f32, 23);
  const Tensor x = Tensor::empty({most, k}, DType::f32);
  RandomStream random(24, RandomPurpose::test);
  for (int64_t i = 0; i < most * k; ++i) {
    const int64_t row = i / k, block = i % k / 32;
    const float limit = 1.0f + static_cast<float>(block % 3),
                sign = row % 2 == 0 && random.below(2) == 0 ? -1.0f : 1.0f;
    const float below = i % 32 == 0 ? 0.0f : static_cast<float>(random.below(300)) / 32767.0f;
    x.data<float>()[i] = (row + block) % 7 == 6 ? 0.0f : sign * limit * (1.0f - below);
  }
  const auto product = [&](Isa isa, int64_t rows) {
    const ActiveIsa active(isa);
    const Tensor out = Tensor::empty({rows, n}, DType::f32);
    kernels::linear_forward(out, x.slice(0, most - rows, most), blocks.weight);
    return out;
  };
  const int threads = thread_count();
  set_thread_count(1);  // whose tasks are the largest
  for (const int fill : {0x00, 0x7f, 0x80, 0xff}) {
    blocks.fill(static_cast<std::byte>(fill));
    const Tensor expected = product(Isa::baseline, most);
    for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx}) {
      if (!kernels::machine_has(isa)) continue;
      for (const int64_t rows : {13, 33, 140})
        EXPECT_TRUE(same_bits(product(isa, rows), expected.slice(0, most - rows, most)))
            << kernels::name_of(isa) << ", bytes " << fill << ", " << rows << " rows";
    }
  }
  set_thread_count(threads);
}

TEST_P(GgmlProducts, OfValuesThatAreNoNumbersAreNoneInTheirRowsAlone) {
  const int64_t n = 16, k = 256;
  const RandomBlocks blocks(GetParam(), n, k, DType::f32, 9);
  for (const Isa isa : all_sets) {
    if (!kernels::machine_has(isa)) continue;
    const ActiveIsa active(isa);
    for (const int64_t m : {6, 19}) {
      const Tensor x = random_matrix(m, k, DType::f32, 10), out = Tensor::empty({m, n}, DType::f32),
                   before = Tensor::empty({m, n}, DType::f32);
      kernels::linear_forward(before, x, blocks.weight);
      x.data<float>()[1 * k + 40] = std::nanf("");
      x.data<float>()[3 * k + 7] = -INFINITY;
      for (int64_t i = 0; i < k; ++i) x.data<float>()[4 * k + i] = i % 2 == 0 ? 0.0f : 1e-40f;
      kernels::linear_forward(out, x, blocks.weight);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          const float value = out.data<float>()[i * n + j];
          if (i == 1 || i == 3) {
            EXPECT_TRUE(std::isnan(value)) << kernels::name_of(isa) << ", " << i;
          } else {
            EXPECT_EQ(value, i == 4 ? 0.0f : before.data<float>()[i * n + j]) << kernels::name_of(isa) << ", " << i;
          }
        }
    }
  }
}

TEST_P(GgmlProducts, InOtherDtypesAreThoseOfTheDequantisedWeight) {
  const int64_t m = 3, n = 20, k = 256;
  const RandomBlocks blocks(GetParam(), n, k, DType::f32, 11);
  const Tensor dense = Tensor::empty({n, k}, DType::f64);
  blocks.weight.dequantize(dense);
  const Tensor x = random_matrix(m, k, DType::f64, 12), out = Tensor::empty({m, n}, DType::f64),
               expected = Tensor::empty({m, n}, DType::f64);
  kernels::linear_forward(out, x, blocks.weight.for_dtype(DType::f64));
  kernels::linear_forward(expected, x, dense);
  EXPECT_TRUE(same_bits(out, expected));
  // f16 is widened on the way and rounded once.
  const Tensor half = kernels::cast(x, DType::f16), half_out = Tensor::empty({m, n}, DType::f16),
               wide_out = Tensor::empty({m, n}, DType::f32);
  kernels::linear_forward(half_out, half, blocks.weight.for_dtype(DType::f16));
  kernels::linear_forward(wide_out, kernels::cast(half, DType::f32), blocks.weight);
  EXPECT_TRUE(same_bits(half_out, kernels::cast(wide_out, DType::f16)));
  // The gradient is that of the dequantised weight.
  const Tensor grad_out = random_matrix(m, n, DType::f32, 13), grad_x = Tensor::empty({m, k}, DType::f32),
               expected_grad = Tensor::empty({m, k}, DType::f32);
  kernels::linear_input_gradient({.grad_x = grad_x, .grad_out = grad_out, .weight = blocks.weight});
  kernels::linear_input_gradient(
      {.grad_x = expected_grad, .grad_out = grad_out, .weight = kernels::cast(dense, DType::f32)});
  EXPECT_TRUE(same_bits(grad_x, expected_grad));
}

TEST_P(GgmlProducts, EmbeddingRowsAreWhatTheBlocksStandFor) {
  const int64_t n = 37, k = 256;
  const RandomBlocks blocks(GetParam(), n, k, DType::bf16, 14);
  const Tensor dense = Tensor::empty({n, k}, DType::bf16), ids = indices({36, 0, 17, 0});
  blocks.weight.dequantize(dense);
  const Tensor out = Tensor::empty({4, k}, DType::bf16), expected = Tensor::empty({4, k}, DType::bf16);
  kernels::embedding_forward(out, blocks.weight, ids);
  kernels::embedding_forward(expected, dense, ids);
  EXPECT_TRUE(same_bits(out, expected));
  EXPECT_THROW(kernels::embedding_forward(out, blocks.weight, indices({0, 1, 2, 37})), ShapeError);
}

// Rows of several adapters, dense and packed, in one pass: each has the bits of its own term alone.
TEST_P(GgmlProducts, WithLoraByRowsAreThoseOfEachTermAlone) {
  const int64_t m = 9, n = 40, k = 256;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const RandomBlocks blocks(GetParam(), n, k, dtype, 17);
    const Tensor x = random_matrix(m, k, dtype, 18), t1 = random_matrix(3, 5, dtype, 19),
                 b1 = random_matrix(n, 5, dtype, 20), t2 = random_matrix(4, 8, dtype, 21),
                 b2 = random_matrix(n, 8, dtype, 22);
    const Tensor out = Tensor::empty({m, n}, dtype), from_panels = Tensor::empty({m, n}, dtype);
    kernels::LinearTerms terms;
    terms.lora_rows = {{1, 4, t1, b1}, {5, 9, t2, kernels::pack_weight(b2, dtype)}};
    kernels::linear_forward(out, x, blocks.weight, terms);
    terms.lora_rows[0].b = kernels::pack_weight(b1, dtype);
    kernels::linear_forward(from_panels, x, blocks.weight, terms);
    EXPECT_TRUE(same_bits(from_panels, out));
    const auto alone = [&](int64_t first, int64_t last, const Tensor& t, const Tensor& b) {
      const Tensor part = Tensor::empty({last - first, n}, dtype);
      kernels::linear_forward(part, x.slice(0, first, last), blocks.weight, {.lora_t = t, .lora_b = b});
      EXPECT_TRUE(same_bits(part, out.slice(0, first, last))) << first;
    };
    alone(0, 1, {}, {});
    alone(1, 4, t1, b1);
    alone(4, 5, {}, {});
    alone(5, 9, t2, b2);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, GgmlProducts, ::testing::ValuesIn(all_formats),
                         [](const auto& info) { return std::string(kernels::name_of(info.param)); });

// A format whose halves of a block have scales of their own among others: rows are quantised in both their orders.
TEST(GgmlProductsTogether, OfSeveralFormatsAreThoseOfEachAlone) {
  const int64_t k = 512;
  const RandomBlocks q(GgmlFormat::q8_0, 48, k, DType::bf16, 25), v(GgmlFormat::q6_k, 20, k, DType::bf16, 26),
      up(GgmlFormat::q5_k, 20, k, DType::bf16, 27);
  for (const Isa isa : all_sets) {
    if (!kernels::machine_has(isa)) continue;
    const ActiveIsa active(isa);
    for (const int64_t m : {3, 37}) {
      const Tensor x = random_matrix(m, k, DType::bf16, 28);
      const auto room = [&](int64_t n) { return Tensor::empty({m, n}, DType::bf16); };
      const kernels::LinearProduct together[] = {{room(48), q.weight}, {room(20), v.weight}, {room(20), up.weight}};
      kernels::linear_forward_each(x, together);
      for (const kernels::LinearProduct& product : together) {
        const Tensor alone = room(product.out.dim(1));
        kernels::linear_forward(alone, x, product.weight);
        EXPECT_TRUE(same_bits(product.out, alone)) << kernels::name_of(isa) << ", " << m << " rows";
      }
      const Tensor gated = room(20), expected = room(20);
      kernels::gated_linear_forward(gated, x, {room(20), v.weight}, {room(20), up.weight}, kernels::Activation::silu);
      kernels::swiglu_forward(expected, together[1].out, together[2].out);
      EXPECT_TRUE(same_bits(gated, expected)) << kernels::name_of(isa) << ", " << m << " rows";
    }
  }
}

TEST(GgmlWeight, TakesTheBytesOfTheFile) {
  for (const GgmlFormat format : all_formats) {
    const RandomBlocks blocks(format, 48, 512, DType::f32, 15);
    EXPECT_EQ(blocks.weight.nbytes(), std::ssize(blocks.bytes) + 48 * 512 / 256 * RandomBlocks::unpacked_scales(format))
        << kernels::name_of(format);
  }
}

TEST(GgmlWeight, RefusesWhatDoesNotFit) {
  const RandomBlocks blocks(GgmlFormat::q4_0, 5, 64, DType::f32, 16);
  const Tensor x = Tensor::zeros({2, 64}, DType::f32), out = Tensor::zeros({2, 5}, DType::f32);
  EXPECT_NO_THROW(kernels::linear_forward(out, x, blocks.weight));
  EXPECT_THROW(kernels::linear_forward(out, Tensor::zeros({2, 32}, DType::f32), blocks.weight), ShapeError);
  EXPECT_THROW(kernels::linear_forward(out, x, blocks.weight.for_dtype(DType::bf16)), ShapeError);
  EXPECT_THROW(kernels::linear_forward(out, x, GgmlWeight{}), ShapeError);
  EXPECT_THROW(blocks.weight.dequantize(Tensor::zeros({6, 64}, DType::f32)), ShapeError);
  EXPECT_THROW(GgmlWeight::pack({GgmlFormat::q4_0, 48, blocks.rows}, DType::f32), ShapeError);
  EXPECT_THROW(GgmlWeight::pack({GgmlFormat::q4_k, 64, blocks.rows}, DType::f32), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
