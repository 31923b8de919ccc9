// Several products of one input: the bits of one after the other, in one parallel region by blocks and packed weights.
#include "kernels/matmul/products.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "core/error.h"
#include "core/fork_count.h"
#include "core/thread_pool.h"
#include "kernels/gated/gated.h"
#include "tests/kernels/ggml_blocks.h"

namespace lathe::testing {
namespace {

using kernels::Activation;
using kernels::LinearProduct;

class TwoThreads : public ::testing::Test {
 protected:
  void SetUp() override { set_thread_count(2); }
  void TearDown() override { set_thread_count(before_); }

 private:
  int before_ = thread_count();
};
using MatmulProducts = TwoThreads;

// q, k and v as files mix them: of different formats and widths, one of them with a last panel that is not full.
struct QueriesKeysValues {
  static constexpr int64_t k = 512;
  DType dtype;
  RandomBlocks q{GgmlFormat::q4_k, 192, k, dtype, 1}, keys{GgmlFormat::q8_0, 67, k, dtype, 2},
      values{GgmlFormat::q6_k, 48, k, dtype, 3};
  Tensor x = random_matrix(300, k, dtype, 4), bias = random_matrix(1, 67, dtype, 5).view({67}),
         residual = random_matrix(300, 48, dtype, 6);

  std::vector<LinearProduct> of(int64_t first, int64_t last) const {
    const auto out = [&](int64_t n) { return Tensor::empty({last - first, n}, dtype); };
    return {
        {out(192), q.weight},
        {out(67), keys.weight, {.lora_t = {}, .lora_b = {}, .bias = bias, .residual = {}}},
        {out(48), values.weight, {.lora_t = {}, .lora_b = {}, .bias = {}, .residual = residual.slice(0, first, last)}}};
  }
};

TEST_F(MatmulProducts, HaveTheBitsOfOneAfterTheOther) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const QueriesKeysValues inputs{dtype};
    for (const Isa isa : all_sets) {
      if (!kernels::machine_has(isa)) continue;
      const ActiveIsa active(isa);
      for (const int threads : {1, 2, 5}) {
        set_thread_count(threads);
        for (const auto& [first, last] : {std::pair{7, 8}, {8, 12}, {20, 25}, {0, 300}}) {
          const Tensor x = inputs.x.slice(0, first, last);
          const std::vector<LinearProduct> products = inputs.of(first, last), apart = inputs.of(first, last);
          kernels::linear_forward_each(x, products);
          for (size_t i = 0; i < apart.size(); ++i) {
            kernels::linear_forward(apart[i].out, x, apart[i].weight, apart[i].terms);
            EXPECT_TRUE(same_bits(products[i].out, apart[i].out))
                << "product " << i << ", " << kernels::name_of(isa) << ", " << last - first << " rows, " << threads;
          }
        }
      }
    }
  }
}

TEST_F(MatmulProducts, ByPackedWeightsHaveTheBitsOfOneAfterTheOtherAndAreOneFork) {
  constexpr int64_t k = 530;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = random_matrix(300, k, dtype, 1), bias = random_matrix(1, 67, dtype, 2).view({67});
    for (const Isa isa : kernels::every_isa) {
      if (!kernels::machine_has(isa)) continue;
      const ActiveIsa active(isa);
      std::vector<kernels::PackedWeight> weights;
      for (const int64_t n : {192, 67, 640})
        weights.push_back(kernels::pack_weight(random_matrix(n, k, dtype, 3), dtype));
      for (const int threads : {1, 2, 5}) {
        set_thread_count(threads);
        for (const int64_t rows : {1, 5, 40, 300}) {
          const auto products = [&] {
            std::vector<LinearProduct> all;
            for (const auto& weight : weights) all.push_back({Tensor::empty({rows, weight.rows()}, dtype), weight});
            all[1].terms.bias = bias;
            return all;
          };
          const std::vector<LinearProduct> together = products(), apart = products();
          const int64_t before = fork_count();
          kernels::linear_forward_each(x.slice(0, 0, rows), together);
          if (rows == 1 && threads > 1) {
            EXPECT_LE(fork_count() - before, 2) << "packing x, and the products";
          }
          for (size_t i = 0; i < apart.size(); ++i) {
            kernels::linear_forward(apart[i].out, x.slice(0, 0, rows), apart[i].weight, apart[i].terms);
            EXPECT_TRUE(same_bits(together[i].out, apart[i].out))
                << "product " << i << ", " << kernels::name_of(isa) << ", " << rows << " rows, " << threads;
          }
        }
      }
    }
  }
}

TEST_F(MatmulProducts, OfAGateHaveTheBitsOfTheActivationAfterThem) {
  const int64_t f = 150, k = 256, most = 280;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const RandomBlocks gate(GgmlFormat::q4_0, f, k, dtype, 7), up(GgmlFormat::q5_1, f, k, dtype, 8);
    const Tensor all = random_matrix(most, k, dtype, 9);
    for (const int64_t rows : {1, 4, 6, 280}) {
      const Tensor x = all.slice(0, 0, rows);
      const auto empty = [&] { return Tensor::empty({rows, f}, dtype); };
      for (const Activation activation : {Activation::silu, Activation::gelu_tanh}) {
        const LinearProduct gates{empty(), gate.weight}, ups{empty(), up.weight};
        kernels::linear_forward(gates.out, x, gate.weight);
        kernels::linear_forward(ups.out, x, up.weight);
        const Tensor expected = empty();
        activation == Activation::silu ? kernels::swiglu_forward(expected, gates.out, ups.out)
                                       : kernels::geglu_forward(expected, gates.out, ups.out);
        const LinearProduct own_gate{empty(), gate.weight}, own_up{empty(), up.weight};
        kernels::gated_linear_forward(own_gate.out, x, own_gate, own_up, activation);
        EXPECT_TRUE(same_bits(own_gate.out, expected)) << rows << " rows, in the gate's memory";
        const Tensor out = empty();
        kernels::gated_linear_forward(out, x, own_gate, own_up, activation);
        EXPECT_TRUE(same_bits(out, expected)) << rows << " rows";
      }
    }
  }
}

TEST_F(MatmulProducts, OfOtherWeightsAreMadeOneAfterTheOther) {
  const Tensor x = random_matrix(3, 64, DType::f32, 10), dense = random_matrix(20, 64, DType::f32, 11);
  const RandomBlocks blocks(GgmlFormat::q8_0, 20, 64, DType::f32, 12);
  const auto empty = [] { return Tensor::empty({3, 20}, DType::f32); };
  const LinearProduct products[] = {{empty(), dense}, {empty(), blocks.weight}};
  kernels::linear_forward_each(x, products);
  for (const LinearProduct& product : products) {
    const Tensor expected = empty();
    kernels::linear_forward(expected, x, product.weight);
    EXPECT_TRUE(same_bits(product.out, expected));
  }
  const Tensor out = empty(), expected = empty();
  kernels::gated_linear_forward(out, x, products[0], products[1], Activation::silu);
  kernels::swiglu_forward(expected, products[0].out, products[1].out);
  EXPECT_TRUE(same_bits(out, expected));
}

TEST_F(MatmulProducts, OfWhichOneHasAnAdapterAreMadeOneAfterTheOther) {
  const Tensor x = random_matrix(3, 64, DType::bf16, 18);
  const auto weight = kernels::pack_weight(random_matrix(20, 64, DType::bf16, 19), DType::bf16);
  const kernels::LinearTerms adapter{.lora_t = random_matrix(3, 4, DType::bf16, 20),
                                     .lora_b = random_matrix(20, 4, DType::bf16, 21)};
  const auto empty = [] { return Tensor::empty({3, 20}, DType::bf16); };
  const LinearProduct products[] = {{empty(), weight}, {empty(), weight, adapter}};
  kernels::linear_forward_each(x, products);
  for (const LinearProduct& product : products) {
    const Tensor expected = empty();
    kernels::linear_forward(expected, x, weight, product.terms);
    EXPECT_TRUE(same_bits(product.out, expected));
  }
  EXPECT_FALSE(same_bits(products[0].out, products[1].out));
}

TEST_F(MatmulProducts, OfOneRowAreOneForkAndSoAreAGateAndItsActivation) {
  const QueriesKeysValues inputs{DType::bf16};
  const RandomBlocks gate(GgmlFormat::q4_1, 256, 512, DType::bf16, 13), up(GgmlFormat::q4_1, 256, 512, DType::bf16, 14);
  const Tensor x = inputs.x.slice(0, 0, 1), out = Tensor::empty({1, 256}, DType::bf16);
  const LinearProduct gates{out, gate.weight}, ups{Tensor::empty({1, 256}, DType::bf16), up.weight};
  const int64_t before = fork_count();
  kernels::linear_forward_each(x, inputs.of(0, 1));
  EXPECT_EQ(fork_count() - before, 1);
  kernels::gated_linear_forward(out, x, gates, ups, Activation::silu);
  EXPECT_EQ(fork_count() - before, 2);
}

// The experts of a mixture: rows of their own, two weights to some rows, of every kind that they have.
TEST_F(MatmulProducts, OfInputsOfTheirOwnHaveTheBitsOfOneAfterTheOther) {
  constexpr int64_t k = 256;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor all = random_matrix(400, k, dtype, 22), bias = random_matrix(1, 67, dtype, 23).view({67});
    const RandomBlocks blocks(GgmlFormat::q4_0, 96, k, dtype, 24), others(GgmlFormat::q6_k, 67, k, dtype, 25);
    const Tensor dense = random_matrix(40, k, dtype, 26);
    for (const Isa isa : kernels::every_isa) {
      if (!kernels::machine_has(isa)) continue;
      const ActiveIsa active(isa);
      const auto packed = kernels::pack_weight(random_matrix(67, k, dtype, 27), dtype),
                 wide = kernels::pack_weight(random_matrix(640, k, dtype, 28), dtype);
      const auto products = [&] {
        std::vector<kernels::GroupedProduct> each;
        const auto add = [&](int64_t first, int64_t rows, const kernels::Weight& weight, bool with_bias) {
          each.push_back({all.slice(0, first, first + rows), {Tensor::empty({rows, weight.rows()}, dtype), weight}});
          if (with_bias) each.back().product.terms.bias = bias;
        };
        for (const int64_t rows : {1, 3, 17, 200}) {
          add(rows, rows, packed, true), add(rows, rows, wide, false);
          add(0, rows, blocks.weight, false), add(0, rows, others.weight, true);
          add(2, rows, dense, false), add(2, rows, dense, false);
        }
        return each;
      };
      for (const int threads : {1, 2, 5}) {
        set_thread_count(threads);
        const auto grouped = products(), apart = products();
        kernels::linear_forward_grouped(grouped);
        for (size_t i = 0; i < apart.size(); ++i) {
          kernels::linear_forward(apart[i].product.out, apart[i].x, apart[i].product.weight, apart[i].product.terms);
          EXPECT_TRUE(same_bits(grouped[i].product.out, apart[i].product.out))
              << "product " << i << ", " << kernels::name_of(isa) << ", " << threads;
        }
      }
    }
  }
}

TEST_F(MatmulProducts, OfInputsOfTheirOwnAreOneFork) {
  const Tensor x = random_matrix(8, 512, DType::bf16, 29);
  const RandomBlocks blocks(GgmlFormat::q4_1, 256, 512, DType::bf16, 30);
  const auto packed = kernels::pack_weight(random_matrix(256, 512, DType::bf16, 31), DType::bf16);
  for (const kernels::Weight& weight : {kernels::Weight(blocks.weight), kernels::Weight(packed)}) {
    std::vector<kernels::GroupedProduct> each;
    for (int64_t row = 0; row < 8; ++row)
      each.push_back({x.slice(0, row, row + 1), {Tensor::empty({1, 256}, DType::bf16), weight}});
    const int64_t before = fork_count();
    kernels::linear_forward_grouped(each);
    EXPECT_EQ(fork_count() - before, 1);
  }
}

TEST_F(MatmulProducts, RefuseWhatDoesNotFit) {
  const RandomBlocks gate(GgmlFormat::q4_0, 32, 64, DType::f32, 15), up(GgmlFormat::q4_0, 16, 64, DType::f32, 16);
  const Tensor x = random_matrix(2, 64, DType::f32, 17);
  const LinearProduct gates{Tensor::empty({2, 32}, DType::f32), gate.weight},
      ups{Tensor::empty({2, 16}, DType::f32), up.weight};
  EXPECT_THROW(kernels::gated_linear_forward(gates.out, x, gates, ups, Activation::silu), ShapeError);
  const LinearProduct narrow[] = {{Tensor::empty({2, 31}, DType::f32), gate.weight}};
  EXPECT_THROW(kernels::linear_forward_each(x, narrow), ShapeError);
  const kernels::GroupedProduct grouped[] = {{x, narrow[0]}};
  EXPECT_THROW(kernels::linear_forward_grouped(grouped), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
