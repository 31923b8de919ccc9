// Matrix products: against the f64 reference under every instruction set (the cases), and the same bits however an
// element is reached: in any batch, with any threads, packed or dense, in one piece or in stretches.
#include "kernels/matmul/matmul.h"

#include <gtest/gtest.h>
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/matmul/lora_shrink.h"
#include "kernels/simd/isa.h"
#include "tests/kernels/matmul_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {

LATHE_CHECK_OPERATIONS(matmul_operations());

namespace {

using namespace kernels;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

float get(const Tensor& t, int64_t i, int64_t j) {
  const int64_t at = i * t.stride(0) + j;
  return t.dtype() == DType::bf16 ? static_cast<float>(t.data<bf16>()[at]) : t.data<float>()[at];
}

void put(const Tensor& t, int64_t i, int64_t j, float value) {
  if (t.dtype() == DType::bf16) {
    t.data<bf16>()[i * t.stride(0) + j] = bf16(value);
  } else {
    t.data<float>()[i * t.stride(0) + j] = value;
  }
}

Tensor random_matrix(int64_t rows, int64_t columns, DType dtype, uint64_t seed) {
  uint64_t state = seed * 2654435761u + 1;
  const Tensor t = Tensor::empty({rows, columns}, dtype);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      put(t, i, j, static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f);
    }
  return t;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.dim(0); ++i)
    if (std::memcmp(static_cast<char*>(a.raw()) + i * a.stride(0) * size_of(a.dtype()),
                    static_cast<char*>(b.raw()) + i * b.stride(0) * size_of(b.dtype()),
                    static_cast<size_t>(a.dim(1) * size_of(a.dtype()))) != 0)
      return false;
  return true;
}

// Every instruction set of this machine, f32 and bf16; puts back what was active.
class MatmulBits : public ::testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  void SetUp() override {
    if (!machine_has(std::get<0>(GetParam()))) GTEST_SKIP() << "this machine lacks the instruction set";
    set_active_isa(std::get<0>(GetParam()));
  }
  void TearDown() override {
    set_active_isa(before_);
    set_thread_count(threads_before_);
  }
  Isa isa() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
  Tensor random(int64_t rows, int64_t columns, uint64_t seed) const {
    return random_matrix(rows, columns, dtype(), seed);
  }

 private:
  Isa before_ = active_isa();
  int threads_before_ = thread_count();
};

INSTANTIATE_TEST_SUITE_P(, MatmulBits,
                         ::testing::Combine(::testing::ValuesIn(kernels::every_isa),
                                            ::testing::Values(DType::f32, DType::bf16)),
                         [](const auto& info) {
                           return std::string(name_of(std::get<0>(info.param))) + "_" +
                                  std::string(name_of(std::get<1>(info.param)));
                         });

TEST_P(MatmulBits, a_row_is_the_same_alone_and_in_every_batch_with_any_threads_packed_or_dense) {
  constexpr int64_t n = 75, k = 131, rank = 5;
  const Tensor weight = random(n, k, 1), x = random(40, k, 2), t = random(40, rank, 3), b = random(n, rank, 4);
  const PackedWeight packed = pack_weight(weight, dtype());
  const Tensor alone = Tensor::empty({40, n}, dtype());
  for (int64_t m = 0; m < 40; ++m)
    linear_forward(alone.slice(0, m, m + 1), x.slice(0, m, m + 1), packed,
                   {.lora_t = t.slice(0, m, m + 1), .lora_b = b});
  for (int64_t rows = 1; rows <= 40; ++rows) {
    set_thread_count(1 + static_cast<int>(rows % 3));
    const Tensor out = Tensor::empty({rows, n}, dtype());
    const LinearTerms terms = {.lora_t = t.slice(0, 0, rows), .lora_b = b};
    linear_forward(out, x.slice(0, 0, rows), packed, terms);
    EXPECT_TRUE(same_bits(out, alone.slice(0, 0, rows))) << rows << " rows, packed";
    linear_forward(out, x.slice(0, 0, rows), weight, terms);
    EXPECT_TRUE(same_bits(out, alone.slice(0, 0, rows))) << rows << " rows, dense";
  }
}

TEST_P(MatmulBits, rows_with_lora_terms_of_their_own_have_the_bits_of_a_product_with_that_term_alone) {
  constexpr int64_t n = 75, k = 2100, rows = 40;
  const Tensor weight = random(n, k, 1), x = random(rows, k, 2), residual = random(rows, n, 3);
  const PackedWeight packed = pack_weight(weight, dtype());
  std::vector<LoraRows> lora;  // single rows, more than a tile, two after each other; rows 0, 22 to 29 and 39 have none
  for (const auto& [begin, end, rank] :
       {std::tuple{1, 2, 5}, {2, 3, 16}, {3, 22, 8}, {30, 31, 1}, {31, 31, 4}, {33, 39, 5}})
    lora.push_back({begin, end, random(end - begin, rank, uint64_t{10} + static_cast<uint64_t>(begin)),
                    random(n, rank, uint64_t{60} + static_cast<uint64_t>(begin))});
  std::vector<LoraRows> packed_lora = lora;
  for (LoraRows& run : packed_lora) run.b = pack_weight(*run.b.dense(), dtype());
  const Tensor expected = Tensor::empty({rows, n}, dtype());
  linear_forward(expected, x, packed, {.residual = residual});
  for (const LoraRows& run : lora)
    linear_forward(expected.slice(0, run.begin, run.end), x.slice(0, run.begin, run.end), packed,
                   {.lora_t = run.t, .lora_b = run.b, .residual = residual.slice(0, run.begin, run.end)});
  for (int threads = 1; threads <= 3; ++threads) {
    set_thread_count(threads);
    const Tensor out = Tensor::empty({rows, n}, dtype());
    linear_forward(out, x, packed, {.residual = residual, .lora_rows = lora});
    EXPECT_TRUE(same_bits(out, expected)) << threads << " threads, packed";
    linear_forward(out, x, weight, {.residual = residual, .lora_rows = lora});
    EXPECT_TRUE(same_bits(out, expected)) << threads << " threads, dense";
    linear_forward(out, x, packed, {.residual = residual, .lora_rows = packed_lora});
    EXPECT_TRUE(same_bits(out, expected)) << threads << " threads, packed terms";
  }
}

TEST_P(MatmulBits, lora_shrink_has_the_bits_of_a_product_by_each_a) {
  for (const int64_t k : {2, 8, 30, 576, 1100, 2100}) {
    const Tensor wide = random(40, k + 6, 1), x = wide.slice(1, 2, 2 + k);  // rows that lie apart
    std::vector<LoraShrink> each;
    std::vector<Tensor> expected;
    for (const auto& [begin, end, rank] :
         {std::tuple{0, 1, 16}, {1, 2, 1}, {2, 5, 5}, {5, 7, 17}, {7, 8, 32}, {8, 8, 8}, {8, 30, 8}, {30, 40, 40}}) {
      const Tensor a = random(rank, k, uint64_t{100} + static_cast<uint64_t>(begin)), rows = x.slice(0, begin, end);
      each.push_back({Tensor::empty({end - begin, rank}, dtype()), rows, pack_narrow(a), 0.75f});
      expected.push_back(Tensor::empty({end - begin, rank}, dtype()));
      matmul(expected.back(), rows, a, Layout::transposed, 0.75f);
    }
    for (int threads = 1; threads <= 3; ++threads) {
      set_thread_count(threads);
      for (const LoraShrink& call : each) std::memset(call.t.raw(), 0xff, static_cast<size_t>(call.t.nbytes()));
      lora_shrink(each);
      for (size_t i = 0; i < each.size(); ++i)
        EXPECT_TRUE(same_bits(each[i].t, expected[i])) << "k " << k << ", " << threads << " threads, adapter " << i;
    }
  }
}

TEST(LoraShrink, shapes_and_dtypes_that_do_not_fit_are_errors) {
  const Tensor a = random_matrix(4, 6, DType::f32, 1), x = random_matrix(2, 6, DType::f32, 2);
  const NarrowPanels packed = pack_narrow(a);
  const auto shrink = [&](const Tensor& t, const Tensor& left) {
    const LoraShrink call{t, left, packed};
    lora_shrink({&call, 1});
  };
  EXPECT_NO_THROW(shrink(Tensor::empty({2, 4}, DType::f32), x));
  EXPECT_THROW(shrink(Tensor::empty({2, 5}, DType::f32), x), ShapeError);
  EXPECT_THROW(shrink(Tensor::empty({2, 4}, DType::f32), random_matrix(2, 5, DType::f32, 2)), ShapeError);
  EXPECT_THROW(shrink(Tensor::empty({2, 4}, DType::f32), random_matrix(2, 6, DType::bf16, 2)), ShapeError);
  EXPECT_THROW(pack_narrow(random_matrix(4, 7, DType::bf16, 1)), ShapeError);
  EXPECT_THROW(pack_narrow(Tensor::empty({4, 6}, DType::f64)), ShapeError);
}

// Wide enough for tasks of several panels at once, their last one partly filled, over more than one k block.
TEST_P(MatmulBits, wide_products_have_the_bits_of_a_row_alone_however_the_right_operand_lies) {
  constexpr int64_t n = 1100, k = 2100, rows = 45, rank = 5;
  const Tensor weight = random(n, k, 1), x = random(rows, k, 2), t = random(rows, rank, 3), b = random(n, rank, 4);
  const PackedWeight packed = pack_weight(weight, dtype());
  const Tensor across = Tensor::empty({k, n}, dtype());
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < n; ++j) put(across, i, j, get(weight, j, i));
  const Tensor alone = Tensor::empty({rows, n}, dtype()), with_lora = Tensor::empty({rows, n}, dtype());
  for (int64_t m = 0; m < rows; ++m) {
    linear_forward(alone.slice(0, m, m + 1), x.slice(0, m, m + 1), packed);
    linear_forward(with_lora.slice(0, m, m + 1), x.slice(0, m, m + 1), packed,
                   {.lora_t = t.slice(0, m, m + 1), .lora_b = b});
  }
  for (int threads = 1; threads <= 2; ++threads) {
    set_thread_count(threads);
    const Tensor out = Tensor::empty({rows, n}, dtype());
    matmul(out, x, weight, Layout::transposed);
    EXPECT_TRUE(same_bits(out, alone)) << threads << " threads, [N, K]";
    matmul(out, x, across, Layout::plain);
    EXPECT_TRUE(same_bits(out, alone)) << threads << " threads, [K, N]";
    linear_forward(out, x, packed, {.lora_t = t, .lora_b = b});
    EXPECT_TRUE(same_bits(out, with_lora)) << threads << " threads, packed";
    linear_forward(out, x, weight, {.lora_rows = {{0, 20, t.slice(0, 0, 20), b}, {20, 45, t.slice(0, 20, 45), b}}});
    EXPECT_TRUE(same_bits(out, with_lora)) << threads << " threads, terms by rows";
  }
}

TEST_P(MatmulBits, panels_of_bf16_that_f32_widens_have_the_bits_of_panels_of_f32_in_half_the_bytes) {
  if (dtype() != DType::f32) GTEST_SKIP() << "for products of f32";
  constexpr int64_t n = 75, k = 1090, rank = 5, rows = 40;
  const Tensor weight = random(n, k, 1), x = random(rows, k, 2), t = random(rows, rank, 3), b = random(n, rank, 4);
  for (float& value : weight.span<float>()) value = static_cast<float>(bf16(value));
  put(weight, 3, 7, 0x1p-133f);  // subnormal
  const PackedWeight packed = pack_weight(weight, DType::f32);
  PackedWeight widened = PackedWeight::allocate_widened(n, k);
  widened.pack_rows(0, 37, weight.data<float>());
  widened.pack_rows(37, n - 37, weight.data<float>() + 37 * k);
  EXPECT_EQ(widened.dtype(), DType::f32);
  EXPECT_EQ(2 * widened.nbytes(), packed.nbytes());
  const Tensor unpacked = Tensor::empty({n, k}, DType::f32);
  widened.unpack_rows(0, n, unpacked.data<float>());
  EXPECT_TRUE(same_bits(unpacked, weight));
  const Tensor grad = random(rows, n, 5);
  for (const int64_t m : {1, 2, 5, 7, 14, 15, 29, 40}) {
    set_thread_count(1 + static_cast<int>(m % 3));
    const Tensor from_f32 = Tensor::empty({m, n}, DType::f32), out = Tensor::empty({m, n}, DType::f32);
    const Tensor rows_of_x = x.slice(0, 0, m);
    for (const LinearTerms& terms :
         {LinearTerms{}, LinearTerms{.lora_t = t.slice(0, 0, m), .lora_b = b},
          LinearTerms{.lora_rows = {{0, 1, t.slice(0, 0, 1), pack_weight(b, DType::f32)}}}}) {
      linear_forward(from_f32, rows_of_x, packed, terms);
      linear_forward(out, rows_of_x, widened, terms);
      EXPECT_TRUE(same_bits(out, from_f32)) << m << " rows";
    }
    const Tensor gradient_from_f32 = Tensor::empty({m, k}, DType::f32), gradient = Tensor::empty({m, k}, DType::f32);
    linear_input_gradient({.grad_x = gradient_from_f32, .grad_out = grad.slice(0, 0, m), .weight = packed});
    linear_input_gradient({.grad_x = gradient, .grad_out = grad.slice(0, 0, m), .weight = widened});
    EXPECT_TRUE(same_bits(gradient, gradient_from_f32)) << m << " rows of a gradient";
  }
  EXPECT_THROW(PackedWeight::allocate_widened(n, 3), ShapeError);
}

TEST_P(MatmulBits, an_input_gradient_row_is_the_same_alone_and_in_every_batch_packed_or_dense) {
  constexpr int64_t n = 131, k = 75, rank = 5;
  const Tensor weight = random(n, k, 1), grad = random(40, n, 2), dt = random(40, rank, 3), a = random(rank, k, 4);
  const PackedWeight packed = pack_weight(weight, dtype());
  const Tensor alone = Tensor::empty({40, k}, dtype());
  for (int64_t m = 0; m < 40; ++m)
    linear_input_gradient({.grad_x = alone.slice(0, m, m + 1),
                           .grad_out = grad.slice(0, m, m + 1),
                           .weight = packed,
                           .lora_dt = dt.slice(0, m, m + 1),
                           .lora_a = a});
  for (int64_t rows = 1; rows <= 40; ++rows) {
    set_thread_count(1 + static_cast<int>(rows % 3));
    const Tensor out = Tensor::empty({rows, k}, dtype());
    linear_input_gradient({.grad_x = out,
                           .grad_out = grad.slice(0, 0, rows),
                           .weight = packed,
                           .lora_dt = dt.slice(0, 0, rows),
                           .lora_a = a});
    EXPECT_TRUE(same_bits(out, alone.slice(0, 0, rows))) << rows << " rows, packed";
    linear_input_gradient({.grad_x = out,
                           .grad_out = grad.slice(0, 0, rows),
                           .weight = weight,
                           .lora_dt = dt.slice(0, 0, rows),
                           .lora_a = a});
    EXPECT_TRUE(same_bits(out, alone.slice(0, 0, rows))) << rows << " rows, dense";
  }
}

// vdpbf16ps on one lane: what it does with roundings and subnormals is the CPU's own.
__attribute__((target("avx512f,avx512vl,avx512bf16"))) float add_pair(float sum, const float* a, const float* b) {
  const auto bits = [](const float* pair) {
    return static_cast<int>(bf16(pair[0]).bits | uint32_t{bf16(pair[1]).bits} << 16);
  };
  return _mm_cvtss_f32(
      _mm_dpbf16_ps(_mm_set_ss(sum), (__m128bh)_mm_cvtsi32_si128(bits(a)), (__m128bh)_mm_cvtsi32_si128(bits(b))));
}

// One chain, one term (or pair) after the other.
float chain(Isa isa, DType dtype, const std::vector<float>& a, const std::vector<float>& b, float sum = 0) {
  if (isa == Isa::avx512_bf16 && dtype == DType::bf16) {
    for (size_t k = 0; k < a.size(); k += 2) {
      const float one[2] = {a[k], k + 1 < a.size() ? a[k + 1] : 0}, other[2] = {b[k], k + 1 < b.size() ? b[k + 1] : 0};
      sum = add_pair(sum, one, other);
    }
    return sum;
  }
  for (size_t k = 0; k < a.size(); ++k) sum = isa == Isa::baseline ? a[k] * b[k] + sum : std::fma(a[k], b[k], sum);
  return sum;
}

std::vector<float> row(const Tensor& t, int64_t i) {
  std::vector<float> values;
  for (int64_t j = 0; j < t.dim(1); ++j) values.push_back(get(t, i, j));
  return values;
}
std::vector<float> column(const Tensor& t, int64_t j, int64_t begin, int64_t end) {
  std::vector<float> values;
  for (int64_t i = begin; i < end; ++i) values.push_back(get(t, i, j));
  return values;
}

// Of AMX: of every 32 terms a chain over the even ones and one over the odd ones, whose sum is added to the total.
float sum_by_tiles(const std::vector<float>& a, const std::vector<float>& b, float total = 0) {
  for (size_t first = 0; first < a.size(); first += 32) {
    float halves[2] = {};
    for (size_t k = first; k < std::min(first + 32, a.size()); ++k)
      halves[k % 2] = std::fma(static_cast<float>(bf16(a[k])), static_cast<float>(bf16(b[k])), halves[k % 2]);
    total += halves[0] + halves[1];
  }
  return total;
}

// The sum that the header promises: groups of 512 (bf16: 1024) terms, each one chain, or, where pairs of bf16 are
// multiplied, groups of 2048 and four chains, to which runs of eight terms go in turn and of which empty ones are left
// out. LoRA's terms are at the end of the last chain, and the chains are added in order.
float grouped_sum(Isa isa, DType dtype, const std::vector<float>& a, const std::vector<float>& b,
                  const std::vector<float>& lora_t, const std::vector<float>& lora_b) {
  if (isa == Isa::amx && dtype == DType::bf16) return sum_by_tiles(lora_t, lora_b, sum_by_tiles(a, b));
  const size_t chains = isa == Isa::avx512_bf16 && dtype == DType::bf16 ? 4 : 1;
  const size_t group = dtype == DType::bf16 ? chains == 4 ? 2048 : 1024 : 512, run = chains == 1 ? group : 8;
  float total = 0;
  for (size_t begin = 0; begin < a.size(); begin += group) {
    const size_t end = std::min(begin + group, a.size());
    for (size_t i = 0; i < chains; ++i) {
      float sum = 0;
      bool empty = true;
      for (size_t first = begin + i * run; first < end; first += chains * run, empty = false) {
        const auto from = static_cast<std::ptrdiff_t>(first),
                   to = static_cast<std::ptrdiff_t>(std::min(first + run, end));
        sum = chain(isa, dtype, {a.begin() + from, a.begin() + to}, {b.begin() + from, b.begin() + to}, sum);
      }
      if (end == a.size() && i == chains - 1 && !lora_t.empty())
        sum = chain(isa, dtype, lora_t, lora_b, sum), empty = false;
      if (!empty) total = begin == 0 && i == 0 ? sum : total + sum;
    }
  }
  return total;
}

TEST_P(MatmulBits, an_element_is_its_groups_chains_in_order_across_slabs_and_stretches) {
  for (int64_t k : {1, 2, 9, 23, 30, 512, 513, 1024, 1025, 1100, 2049, 2075,
                    17001}) {  // within a slab, over slabs, over stretches of packed left operand
    const Tensor weight = random(35, k, 1), x = random(3, k, 2), t = random(3, 6, 3), b = random(35, 6, 4);
    const PackedWeight packed = pack_weight(weight, dtype());
    const Tensor out = Tensor::empty({3, 35}, DType::f32);
    linear_forward(out, x, packed, {.lora_t = t, .lora_b = b});
    for (int64_t m = 0; m < 3; ++m)
      for (int64_t n = 0; n < 35; ++n)
        ASSERT_EQ(get(out, m, n), grouped_sum(isa(), dtype(), row(x, m), row(weight, n), row(t, m), row(b, n)))
            << k << " at " << m << ", " << n;
  }
}

TEST_P(MatmulBits, long_sums_are_the_same_in_stretches_for_one_row_and_for_many) {
  const Tensor weight = random(33, 17001, 1), x = random(5, 17001, 2);
  const PackedWeight packed = pack_weight(weight, dtype());
  const Tensor alone = Tensor::empty({5, 33}, DType::f32), out = Tensor::empty({5, 33}, DType::f32);
  for (int64_t m = 0; m < 5; ++m) linear_forward(alone.slice(0, m, m + 1), x.slice(0, m, m + 1), packed);
  linear_forward(out, x, packed);
  EXPECT_TRUE(same_bits(out, alone));

  const Tensor tall = random(17001, 33, 3), grad = random(3, 17001, 4);
  const PackedWeight tall_packed = pack_weight(tall, dtype());
  const Tensor from_packed = Tensor::empty({3, 33}, DType::f32), from_dense = Tensor::empty({3, 33}, DType::f32);
  linear_input_gradient({.grad_x = from_packed, .grad_out = grad, .weight = tall_packed});
  linear_input_gradient({.grad_x = from_dense, .grad_out = grad, .weight = tall});
  EXPECT_TRUE(same_bits(from_packed, from_dense));
}

TEST_P(MatmulBits, more_rows_than_one_stretch_holds) {
  const Tensor weight = random(5, 3, 1), x = random(4500, 3, 2);
  const Tensor out = Tensor::empty({4500, 5}, dtype());
  linear_forward(out, x, weight);
  for (int64_t m = 0; m < 4500; m += 7) {
    const Tensor alone = Tensor::empty({1, 5}, dtype());
    linear_forward(alone, x.slice(0, m, m + 1), weight);
    ASSERT_TRUE(same_bits(alone, out.slice(0, m, m + 1))) << m;
  }
}

TEST_P(MatmulBits, a_zero_adapter_changes_nothing) {
  const Tensor weight = random(37, 41, 1), x = random(9, 41, 2), t = random(9, 4, 3);
  const Tensor zero = Tensor::zeros({37, 4}, dtype());
  const Tensor with = Tensor::empty({9, 37}, dtype()), without = Tensor::empty({9, 37}, dtype());
  linear_forward(with, x, weight, {.lora_t = t, .lora_b = zero});
  linear_forward(without, x, weight);
  EXPECT_TRUE(same_bits(with, without));
}

TEST_P(MatmulBits, infinities_and_nan_stay_in_their_row_and_column) {
  for (int64_t k : {40, 41}) {
    const Tensor weight = random(70, k, 1), x = random(17, k, 2);
    put(x, 3, k - 1, nan);
    put(x, 16, 0, infinity);
    put(weight, 69, k - 1, -infinity);
    const PackedWeight packed = pack_weight(weight, dtype());
    const Tensor out = Tensor::empty({17, 70}, dtype());
    linear_forward(out, x, packed);
    for (int64_t m = 0; m < 17; ++m)
      for (int64_t n = 0; n < 70; ++n) {
        if (m == 3) {
          EXPECT_TRUE(std::isnan(get(out, m, n))) << m << ", " << n;
        } else if (m == 16 || n == 69) {
          EXPECT_FALSE(std::isfinite(get(out, m, n))) << m << ", " << n;
        } else {
          EXPECT_TRUE(std::isfinite(get(out, m, n))) << m << ", " << n;
        }
      }
  }
}

TEST_P(MatmulBits, a_weight_gradient_is_its_chains_along_tokens) {
  const Tensor grad_out = random(23, 18, 1), x = random(23, 33, 2);
  const Tensor grad = random_matrix(18, 33, DType::f32, 3), start = grad.clone();
  const int32_t bounds[] = {0, 5, 5, 23};
  linear_weight_gradient(grad, grad_out, x, Tensor::of<int32_t>(bounds, {4}), 0.5f);
  for (int64_t n = 0; n < 18; ++n)
    for (int64_t k = 0; k < 33; ++k) {
      float total = get(start, n, k);
      for (int s = 0; s < 3; s += 2) {
        const float sum = grouped_sum(isa(), dtype(), column(grad_out, n, bounds[s], bounds[s + 1]),
                                      column(x, k, bounds[s], bounds[s + 1]), {}, {});
        total = 0.5f * sum + total;
      }
      ASSERT_EQ(get(grad, n, k), total) << n << ", " << k;
    }
}

TEST_P(MatmulBits, packing_rounds_once_and_reads_back_whatever_pieces_it_came_in) {
  for (int64_t columns : {1, 31, 64, 65}) {
    const Tensor rows = random_matrix(77, columns, DType::f32, 5);
    const PackedWeight whole = pack_weight(rows, dtype());
    PackedWeight pieces = PackedWeight::allocate(77, columns, dtype());
    int64_t first = 0;
    for (int64_t count : {3, 16, 13, 1, 40, 4}) {
      pieces.pack_rows(first, count, rows.data<float>() + first * columns);
      first += count;
    }
    ASSERT_EQ(first, 77);
    EXPECT_EQ(std::memcmp(whole.panels().raw(), pieces.panels().raw(), static_cast<size_t>(whole.panels().nbytes())),
              0);
    const Tensor back = Tensor::empty({77, columns}, DType::f32);
    pieces.unpack_rows(0, 50, back.data<float>());
    pieces.unpack_rows(50, 27, back.data<float>() + 50 * columns);
    for (int64_t i = 0; i < 77; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        const float value = get(rows, i, j);
        ASSERT_EQ(get(back, i, j), dtype() == DType::bf16 ? static_cast<float>(bf16(value)) : value);
      }
  }
}

TEST_P(MatmulBits, nothing_to_reduce_gives_the_bias_and_no_rows_give_nothing) {
  const Tensor bias = Tensor::empty({3}, dtype());
  for (int64_t i = 0; i < 3; ++i) put(bias.view({1, 3}), 0, i, static_cast<float>(i) - 1);
  const Tensor out = random(2, 3, 1);
  linear_forward(out, Tensor::empty({2, 0}, dtype()), Tensor::empty({3, 0}, dtype()), {.bias = bias});
  for (int64_t m = 0; m < 2; ++m)
    for (int64_t n = 0; n < 3; ++n) EXPECT_EQ(get(out, m, n), static_cast<float>(n) - 1);
  linear_forward(Tensor::empty({0, 3}, dtype()), Tensor::empty({0, 7}, dtype()), random(3, 7, 2));
  linear_input_gradient({.grad_x = Tensor::empty({0, 7}, dtype()),
                         .grad_out = Tensor::empty({0, 3}, dtype()),
                         .weight = random(3, 7, 2)});
  const Tensor grad = random_matrix(3, 7, DType::f32, 3), start = grad.clone();
  linear_weight_gradient(grad, Tensor::empty({0, 3}, dtype()), Tensor::empty({0, 7}, dtype()),
                         Tensor::zeros({1}, DType::i32));
  EXPECT_TRUE(same_bits(grad, start));
}

// What the error of `call` says; empty when it throws none.
template <class Call>
std::string shape_error(const Call& call) {
  try {
    call();
  } catch (const ShapeError& error) {
    return error.what();
  }
  return {};
}

TEST(MatmulShapes, what_does_not_fit_is_named_with_both_shapes) {
  const Tensor x = Tensor::zeros({3, 8}, DType::f32), w = Tensor::zeros({5, 7}, DType::f32);
  const Tensor out = Tensor::empty({3, 5}, DType::f32);
  EXPECT_EQ(shape_error([&] { linear_forward(out, x, w); }),
            "linear_forward: weight: expected [5, 8], found f32[5, 7] on cpu");
  EXPECT_EQ(shape_error([&] { linear_forward(out, x, pack_weight(w, DType::f32)); }),
            "linear_forward: weight: expected [5, 8], found f32[5, 7] packed");
  const Tensor weight = Tensor::zeros({5, 8}, DType::f32);
  EXPECT_EQ(shape_error([&] { linear_forward(out, x, pack_weight(weight, DType::bf16)); }),
            "linear_forward: weight: expected dtype f32, found bf16[5, 8] packed");
  EXPECT_EQ(shape_error([&] { linear_forward(out.transpose(0, 1), x, weight); }),
            "linear_forward: out: expected [3, 5], found f32[5, 3] on cpu");
  EXPECT_NE(shape_error([&] { linear_forward(out, x, weight, {.lora_t = Tensor::zeros({3, 2}, DType::f32)}); }), "");
  EXPECT_NE(shape_error([&] { linear_forward(out, x, weight, {.bias = Tensor::zeros({4}, DType::f32)}); }), "");
  EXPECT_NE(shape_error([&] { linear_forward(out, x, weight, {.residual = Tensor::zeros({3, 4}, DType::f32)}); }), "");
  EXPECT_NE(shape_error([&] { linear_forward(out, Tensor::zeros({8, 3}, DType::f32).transpose(0, 1), weight); }), "");
  EXPECT_NE(shape_error([&] { linear_input_gradient({.grad_x = x, .grad_out = out, .weight = w}); }), "");
  EXPECT_NE(shape_error([&] { matmul(out, x, weight, Layout::plain); }), "");
  const int32_t descending[] = {0, 2, 1, 3};
  EXPECT_NE(shape_error([&] {
              linear_weight_gradient(Tensor::zeros({5, 8}, DType::f32), out, x, Tensor::of<int32_t>(descending, {4}));
            }),
            "");
  PackedWeight packed = PackedWeight::allocate(5, 8, DType::f32);
  EXPECT_NE(shape_error([&] { packed.pack_rows(3, 3, x.data<float>()); }), "");
}

}  // namespace
}  // namespace lathe::testing
