// Matrix products on devices, beyond their cases: the bits of f32 are the CPU's, an element's bits do not depend on the
// shape of tile that computes it, nor on the instruction, and weights packed on a device.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/matmul/cuda/few_rows.h"
#include "kernels/matmul/cuda/product.h"
#include "kernels/matmul/matmul.h"
#include "kernels/simd/isa.h"
#include "tests/support/hopper.h"

namespace lathe::kernels {
namespace {

Tensor random_matrix(int64_t rows, int64_t columns, DType dtype, uint64_t seed) {
  uint64_t state = seed * 2654435761u + 1;
  const Tensor wide = Tensor::empty({rows, columns}, DType::f32);
  for (float& value : wide.span<float>()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
  }
  return cast(wide, dtype);
}

Tensor copy_to(Device device, const Tensor& tensor) {
  const Tensor result = Tensor::empty(tensor.shape(), tensor.dtype(), device);
  copy_bytes(device, result.raw(), {}, tensor.raw(), tensor.nbytes());
  return result;
}

std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> result(static_cast<size_t>(tensor.nbytes()));
  copy_bytes({}, result.data(), tensor.device(), tensor.raw(), tensor.nbytes());
  return result;
}

class MatmulDevice : public ::testing::TestWithParam<DeviceKind> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
  }
  Device device() const { return {GetParam()}; }
  Tensor there(const Tensor& tensor) const { return copy_to(device(), tensor); }
  Tensor room(int64_t rows, int64_t columns, DType dtype) const {
    return Tensor::empty({rows, columns}, dtype, device());
  }
  static std::vector<std::byte> bytes(const Tensor& tensor) { return bytes_of(tensor); }
};

INSTANTIATE_TEST_SUITE_P(, MatmulDevice, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return info.param == DeviceKind::simt ? "simt" : "cuda"; });

TEST_P(MatmulDevice, f32_has_the_bits_of_a_cpu_with_fused_multiply_adds) {
  if (active_isa() == Isa::baseline) GTEST_SKIP() << "this CPU has no fused multiply-add";
  constexpr int64_t m = 3, n = 5, k = 1030, rank = 4;  // three chains
  const Tensor x = random_matrix(m, k, DType::f32, 1), w = random_matrix(n, k, DType::f32, 2);
  const Tensor t = random_matrix(m, rank, DType::f32, 3), b = random_matrix(n, rank, DType::f32, 4);
  const Tensor out = Tensor::empty({m, n}, DType::f32), on_device = room(m, n, DType::f32);
  linear_forward(out, x, w, {.lora_t = t, .lora_b = b});
  linear_forward(on_device, there(x), there(w), {.lora_t = there(t), .lora_b = there(b)});
  EXPECT_EQ(bytes(on_device), bytes(out));

  const Tensor tall = random_matrix(k, n, DType::f32, 5), grad = room(m, n, DType::f32);
  linear_input_gradient({.grad_x = out, .grad_out = x, .weight = tall});
  linear_input_gradient({.grad_x = grad, .grad_out = there(x), .weight = there(tall)});
  EXPECT_EQ(bytes(grad), bytes(out));

  const Tensor tokens = random_matrix(k, m, DType::f32, 6), sums = Tensor::zeros({m, n}, DType::f32),
               start = there(sums);
  const int32_t bounds[] = {0, 600, 600, 1030};
  const Tensor cu_seqlens = Tensor::of<int32_t>(bounds, {4});
  linear_weight_gradient(sums, tokens, tall, cu_seqlens, 0.3f);
  linear_weight_gradient(start, there(tokens), there(tall), cu_seqlens, 0.3f);
  EXPECT_EQ(bytes(start), bytes(sums));
}

// A grid has 65535 blocks along y at most. 65538 blocks take simt twelve seconds: the launch fails on purpose, which it
// does for what no card can launch before it does so for that.
TEST(MatmulF32, launches_more_tiles_of_rows_than_a_grid_has_along_y) {
  const Device device{DeviceKind::simt};
  constexpr int64_t rows = 65535 * 64 + 65;
  const auto matrix = [&](int64_t m) { return Tensor::empty({m, 1}, DType::f32, device); };
  const Tensor out = matrix(rows), x = matrix(rows), w = matrix(1);
  simt::fail_nth(simt::Call::launch, 1);
  std::string error;
  try {
    linear_forward(out, x, w);
  } catch (const Error& e) {
    error = e.what();
  }
  EXPECT_NE(error.find("injected launch failure"), std::string::npos) << error;
}

TEST_P(MatmulDevice, an_element_has_the_same_bits_in_every_shape_of_tile) {
  constexpr int64_t n = 40, k = 104, rank = 8;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = there(random_matrix(130, k, dtype, 1)), t = there(random_matrix(130, rank, dtype, 2));
    const Tensor w = there(random_matrix(n, k, dtype, 3)), b = there(random_matrix(n, rank, dtype, 4));
    const Tensor plain = there(random_matrix(k, n, dtype, 5)), a = there(random_matrix(rank, n, dtype, 6));
    const Tensor one = room(1, n, DType::f32), one_gradient = room(1, n, DType::f32);
    linear_forward(one, x.slice(0, 0, 1), w, {.lora_t = t.slice(0, 0, 1), .lora_b = b});
    linear_input_gradient({.grad_x = one_gradient,
                           .grad_out = x.slice(0, 0, 1),
                           .weight = plain,
                           .lora_dt = t.slice(0, 0, 1),
                           .lora_a = a});
    for (const int64_t rows : {17, 70, 130}) {  // on simt: narrow, medium, large
      const Tensor out = room(rows, n, DType::f32);
      linear_forward(out, x.slice(0, 0, rows), w, {.lora_t = t.slice(0, 0, rows), .lora_b = b});
      EXPECT_EQ(bytes(out.slice(0, 0, 1)), bytes(one)) << rows << " rows of " << name_of(dtype);
      linear_input_gradient({.grad_x = out,
                             .grad_out = x.slice(0, 0, rows),
                             .weight = plain,
                             .lora_dt = t.slice(0, 0, rows),
                             .lora_a = a});
      EXPECT_EQ(bytes(out.slice(0, 0, 1)), bytes(one_gradient)) << rows << " rows of " << name_of(dtype);
    }
  }
}

// What the three layouts of a product give, with all their terms, for k = 72: two stages along k and one of LoRA's; and
// one that is only scaled and rounded.
struct LargeProducts {
  std::vector<std::byte> forward, input_gradient, weight_gradient, rounded;
};
LargeProducts large_products(int64_t rows, int64_t columns, DType dtype) {
  const Device device{DeviceKind::simt};
  constexpr int64_t k = 72, rank = 8, tokens = 142;
  const int64_t outputs = columns - 3;  // of the forward, whose weight need not have rows by eights
  const auto matrix = [device](int64_t m, int64_t n, DType type, uint64_t seed) {
    return copy_to(device, random_matrix(m, n, type, seed));
  };
  const Tensor x = matrix(rows, k, dtype, 1), t = matrix(rows, rank, dtype, 2);
  const Tensor out = matrix(rows, outputs, DType::f32, 3);
  linear_forward(out, x, matrix(outputs, k, dtype, 4),
                 {.lora_t = t,
                  .lora_b = matrix(outputs, rank, dtype, 5),
                  .bias = matrix(1, outputs, dtype, 6).view({outputs}),
                  .residual = out});
  const Tensor grad_x = matrix(rows, columns, dtype, 7);
  linear_input_gradient({.grad_x = grad_x,
                         .grad_out = x,
                         .weight = matrix(k, columns, dtype, 8),
                         .lora_dt = t,
                         .lora_a = matrix(rank, columns, dtype, 9),
                         .accumulate = true});
  const Tensor grad_weight = matrix(rows, columns, DType::f32, 10);
  const int32_t bounds[] = {0, 72, 72, tokens};
  linear_weight_gradient(grad_weight, matrix(tokens, rows, dtype, 11), matrix(tokens, columns, dtype, 12),
                         Tensor::of<int32_t>(bounds, {4}), 0.7f);
  const Tensor rounded = matrix(rows, columns, dtype, 13);
  matmul(rounded, x, matrix(columns, k, dtype, 14), Layout::transposed, 0.7f);
  return {bytes_of(out), bytes_of(grad_x), bytes_of(grad_weight), bytes_of(rounded)};
}

// By wgmma, on simt as a card of sm_90, as by mma.sync.
void expect_same_bits(int64_t rows, int64_t columns, DType dtype, simt::FiberOrder order) {
  const LargeProducts expected = large_products(rows, columns, dtype);
  const testing::Hopper hopper(order);
  const LargeProducts found = large_products(rows, columns, dtype);
  EXPECT_EQ(found.forward, expected.forward);
  EXPECT_EQ(found.input_gradient, expected.input_gradient);
  EXPECT_EQ(found.weight_gradient, expected.weight_gradient);
  EXPECT_EQ(found.rounded, expected.rounded);
}

// Two rows of tiles, so that blocks go in pairs, none of whose tiles is whole.
TEST(MatmulWarpgroups, have_the_bits_of_mma_sync_in_wide_tiles_of_pairs) {  // two to a block
  expect_same_bits(200, 496, DType::bf16, simt::FiberOrder::ascending);
}
TEST(MatmulWarpgroups, have_the_bits_of_mma_sync_in_square_tiles_of_pairs) {  // three to a block
  expect_same_bits(200, 264, DType::bf16, simt::FiberOrder::descending);
  expect_same_bits(200, 264, DType::f16, simt::FiberOrder::shuffled);
}
TEST(MatmulWarpgroups, have_the_bits_of_mma_sync_where_the_rows_of_tiles_are_odd) {
  expect_same_bits(300, 248, DType::bf16, simt::FiberOrder::ascending);
}
TEST(MatmulWarpgroups, have_the_bits_of_mma_sync_in_one_round_of_tiles) {
  expect_same_bits(200, 120, DType::bf16, simt::FiberOrder::ascending);
}

TEST(MatmulWarpgroups, take_large_products_that_bulk_copies_can_serve) {
  alignas(16) static const char somewhere[32] = {};
  const auto matrix = [](int64_t stride, int offset = 0) {
    return ProductMatrix{const_cast<char*>(somewhere) + offset, stride, DType::bf16};
  };
  const ProductArgs large{.layout = ProductLayout::rows_rows,
                          .dtype = DType::bf16,
                          .m = 65,
                          .n = 65,
                          .k = 40,
                          .left = matrix(40),
                          .right = matrix(48)};
  const auto taken = [](const ProductArgs& args) { return takes_warpgroups<DeviceKind::simt>(args); };
  use_device({DeviceKind::simt});
  EXPECT_FALSE(taken(large)) << "sm_80 has no wgmma";
  const testing::Hopper hopper;
  EXPECT_TRUE(taken(large));
  ProductArgs other = large;
  other.m = 16;
  EXPECT_FALSE(taken(other)) << "few rows";
  other = large, other.n = 16, other.right = matrix(48);
  EXPECT_TRUE(taken(other)) << "few columns, as LoRA's";
  other.m = 16, other.n = 65, other.left = matrix(16), other.right = matrix(72);
  EXPECT_FALSE(taken(other)) << "few rows";
  other.layout = ProductLayout::columns_plain;
  EXPECT_TRUE(taken(other)) << "few rows of a gradient";
  other = large, other.left = matrix(41);
  EXPECT_FALSE(taken(other)) << "rows that are not 16 bytes apart";
  other = large, other.right = matrix(48, 2);
  EXPECT_FALSE(taken(other)) << "a matrix that begins between multiples of 16 bytes";
  other = large, other.k2 = 4, other.left2 = matrix(8), other.right2 = matrix(4);
  EXPECT_FALSE(taken(other)) << "LoRA's rows that are not 16 bytes apart";
  other.right2 = matrix(8);
  EXPECT_TRUE(taken(other));
}

// On a card of sm_90 the row alone goes through mma.sync, the many through wgmma.
TEST_P(MatmulDevice, a_row_has_the_same_bits_alone_and_among_many) {
  constexpr int64_t rows = 300, n = 136, k = 328, rank = 16;
  const testing::Hopper hopper;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = there(random_matrix(rows, k, dtype, 1)), t = there(random_matrix(rows, rank, dtype, 2));
    const Tensor w = there(random_matrix(n, k, dtype, 3)), b = there(random_matrix(n, rank, dtype, 4));
    const Tensor out = room(rows, n, DType::f32), one = room(1, n, DType::f32);
    linear_forward(out, x, w, {.lora_t = t, .lora_b = b});
    for (const int64_t row : {0, 77, 191, 299}) {
      linear_forward(one, x.slice(0, row, row + 1), w, {.lora_t = t.slice(0, row, row + 1), .lora_b = b});
      EXPECT_EQ(bytes(out.slice(0, row, row + 1)), bytes(one)) << "row " << row << " of " << name_of(dtype);
    }
  }
}

// On simt, which has two multiprocessors, up to 32 columns are too few for tiles of 32; on a card 29 and 61 both are.
TEST_P(MatmulDevice, few_rows_have_the_same_bits_in_tiles_of_eight_columns) {
  constexpr int64_t k = 1100, rank = 8;  // 18 stages: more than there is room for
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = there(random_matrix(17, k, dtype, 1)), t = there(random_matrix(17, rank, dtype, 2));
    const Tensor w = there(random_matrix(61, k, dtype, 3)), b = there(random_matrix(61, rank, dtype, 4));
    const Tensor narrow = room(17, 29, DType::f32);  // 17 rows are too many for a tile of few
    linear_forward(narrow, x, w.slice(0, 0, 29), {.lora_t = t, .lora_b = b.slice(0, 0, 29)});
    for (const int64_t rows : {1, 16}) {
      const Tensor few = room(rows, 29, DType::f32), more = room(rows, 61, DType::f32);
      const LinearTerms terms{.lora_t = t.slice(0, 0, rows), .lora_b = b.slice(0, 0, 29)};
      linear_forward(few, x.slice(0, 0, rows), w.slice(0, 0, 29), terms);
      linear_forward(more, x.slice(0, 0, rows), w, {.lora_t = t.slice(0, 0, rows), .lora_b = b});
      EXPECT_EQ(bytes(few), bytes(narrow.slice(0, 0, rows))) << rows << " rows of " << name_of(dtype);
      for (int64_t row = 0; row < rows; ++row)
        EXPECT_EQ(bytes(more.slice(0, row, row + 1).slice(1, 0, 29)), bytes(few.slice(0, row, row + 1)));
    }
  }
}

// Up to 16 rows by a weight [n, k] with every term, the weight dense or packed, which is read early.
std::vector<std::byte> few_rows(int64_t rows, int64_t n, int64_t k, int64_t rank, DType dtype, bool packed) {
  const Device device{DeviceKind::simt};
  const auto matrix = [device](int64_t m, int64_t columns, DType type, uint64_t seed) {
    return copy_to(device, random_matrix(m, columns, type, seed));
  };
  const Tensor weight = matrix(n, k, dtype, 1), out = matrix(rows, n, DType::f32, 2);
  LinearTerms terms{.bias = matrix(1, n, dtype, 3).view({n}), .residual = out};
  if (rank > 0) terms.lora_t = matrix(rows, rank, dtype, 4), terms.lora_b = matrix(n, rank, dtype, 5);
  linear_forward(out, matrix(rows, k, dtype, 6), packed ? Weight(pack_weight(weight, dtype)) : Weight(weight), terms);
  return bytes_of(out);
}

void expect_few_rows_have_the_same_bits(int64_t rows, int64_t n, int64_t k, int64_t rank, simt::FiberOrder order) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const std::vector<std::byte> expected = few_rows(rows, n, k, rank, dtype, false);
    const testing::Hopper hopper(order);
    EXPECT_EQ(few_rows(rows, n, k, rank, dtype, false), expected);
    EXPECT_EQ(few_rows(rows, n, k, rank, dtype, true), expected);
  }
}

// On simt's two multiprocessors a tile has as many rows of the weight as half of it, up to 64.
TEST(MatmulFewRows, have_the_bits_of_mma_sync_in_tiles_of_8) {  // stages of eight boxes
  expect_few_rows_have_the_same_bits(1, 16, 1096, 0, simt::FiberOrder::ascending);
  expect_few_rows_have_the_same_bits(16, 13, 104, 8, simt::FiberOrder::shuffled);
}
TEST(MatmulFewRows, have_the_bits_of_mma_sync_in_tiles_of_16_and_24) {  // of four and two
  expect_few_rows_have_the_same_bits(8, 29, 1096, 72, simt::FiberOrder::descending);
  expect_few_rows_have_the_same_bits(9, 40, 328, 8, simt::FiberOrder::shuffled);
}
TEST(MatmulFewRows, have_the_bits_of_mma_sync_in_tiles_of_32_and_48) {
  expect_few_rows_have_the_same_bits(3, 61, 64, 16, simt::FiberOrder::descending);
  expect_few_rows_have_the_same_bits(16, 93, 8, 0, simt::FiberOrder::ascending);
}
TEST(MatmulFewRows, have_the_bits_of_mma_sync_in_several_tiles_to_a_block) {
  expect_few_rows_have_the_same_bits(1, 333, 72, 8, simt::FiberOrder::shuffled);
  expect_few_rows_have_the_same_bits(15, 290, 136, 0, simt::FiberOrder::ascending);
}

TEST(MatmulFewRows, go_through_wgmma_where_bulk_copies_can_serve_them) {
  const Device device{DeviceKind::simt};
  const auto matrix = [&](int64_t rows, int64_t columns) {
    return copy_to(device, random_matrix(rows, columns, DType::bf16, 1));
  };
  const Tensor x = matrix(17, 72), w = matrix(20, 72), out = matrix(17, 20);
  const auto taken = [&](int64_t rows, int64_t first_column) {
    const auto of = [&](const Tensor& t) { return ProductMatrix{t.slice(1, first_column, 16).raw(), 72, t.dtype()}; };
    return few_rows_by_wgmma<DeviceKind::simt>({.layout = ProductLayout::rows_rows,
                                                .dtype = DType::bf16,
                                                .m = rows,
                                                .n = 20,
                                                .k = 16,
                                                .left = of(x),
                                                .right = of(w),
                                                .out = {out.raw(), 20, DType::bf16}});
  };
  use_device(device);
  EXPECT_FALSE(taken(1, 0)) << "sm_80 has no wgmma";
  const testing::Hopper hopper;
  EXPECT_TRUE(taken(1, 0));
  EXPECT_TRUE(taken(16, 8));
  EXPECT_FALSE(taken(17, 0)) << "more than few rows";
  EXPECT_FALSE(taken(1, 4)) << "rows that begin between multiples of 16 bytes";
}

// Tiles of every height, up to several to a block: on simt, which has two multiprocessors, and on a card.
TEST_P(MatmulDevice, few_rows_have_the_bits_of_many_in_every_tile) {
  constexpr int64_t k = 200;
  const testing::Hopper hopper;
  const auto widths = device().kind == DeviceKind::simt
                          ? std::vector<int64_t>{16, 40, 93, 261}
                          : std::vector<int64_t>{600, 2048, 3080, 4120, 6200, 8456, 20008};
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = there(random_matrix(70, k, dtype, 1));
    for (const int64_t n : widths) {
      const PackedWeight weight = pack_weight(there(random_matrix(n, k, dtype, 2)), dtype);
      const Tensor many = room(70, n, DType::f32);
      linear_forward(many, x, weight);
      for (const int64_t rows : {1, 8, 16}) {
        const Tensor few = room(rows, n, DType::f32);
        linear_forward(few, x.slice(0, 0, rows), weight);
        EXPECT_EQ(bytes(few), bytes(many.slice(0, 0, rows))) << rows << " rows, " << n << " columns";
      }
    }
  }
}

TEST_P(MatmulDevice, a_weight_gradient_takes_more_sequences_than_one_launch_does) {
  constexpr int64_t sequences = 515, n = 2, k = 3;  // 512 in the first launch
  std::vector<int32_t> bounds{0};
  for (int32_t s = 0; s < sequences; ++s) bounds.push_back(bounds.back() + (s % 100 == 12 ? 2 : 0));  // most are empty
  const Tensor cu_seqlens = Tensor::of<int32_t>(bounds, {sequences + 1});
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor grad_out = random_matrix(bounds.back(), n, dtype, 1), x = random_matrix(bounds.back(), k, dtype, 2);
    const Tensor all = there(Tensor::zeros({n, k}, DType::f32)), parts = there(Tensor::zeros({n, k}, DType::f32));
    linear_weight_gradient(all, there(grad_out), there(x), cu_seqlens);
    for (int64_t first = 0; first < sequences; first += 103) {
      const int32_t begin = bounds[static_cast<size_t>(first)], end = bounds[static_cast<size_t>(first + 103)];
      std::vector<int32_t> part(bounds.begin() + first, bounds.begin() + first + 104);
      for (int32_t& bound : part) bound -= begin;
      linear_weight_gradient(parts, there(grad_out.slice(0, begin, end)), there(x.slice(0, begin, end)),
                             Tensor::of<int32_t>(part, {104}));
    }
    EXPECT_EQ(bytes(all), bytes(parts)) << name_of(dtype);
    EXPECT_NE(bytes(all), bytes(Tensor::zeros({n, k}, DType::f32)));
  }
}

TEST_P(MatmulDevice, weights_are_packed_row_by_row_and_read_back) {
  constexpr int64_t rows = 7, columns = 13;
  const Tensor values = random_matrix(rows, columns, DType::f32, 1);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    PackedWeight weight = PackedWeight::allocate(rows, columns, dtype, MemoryTag::weights, device());
    EXPECT_EQ(weight.device(), device());
    weight.pack_rows(3, 4, values.data<float>() + 3 * columns);
    weight.pack_rows(0, 3, values.data<float>());
    EXPECT_EQ(weight.dense().stride(0) * size_of(dtype) % 16, 0);
    const Tensor back = Tensor::empty({rows, columns}, DType::f32);
    weight.unpack_rows(0, 2, back.data<float>());
    weight.unpack_rows(2, 5, back.data<float>() + 2 * columns);
    EXPECT_EQ(bytes(back), bytes(cast(cast(values, dtype), DType::f32))) << name_of(dtype);

    const Tensor x = random_matrix(2, columns, dtype, 2), cpu = Tensor::empty({2, rows}, DType::f32);
    const Tensor packed = room(2, rows, DType::f32), dense = room(2, rows, DType::f32);
    linear_forward(packed, there(x), weight);
    linear_forward(dense, there(x), there(cast(values, dtype)));
    EXPECT_EQ(bytes(packed), bytes(dense)) << name_of(dtype);
  }
}

TEST_P(MatmulDevice, a_dense_weight_of_the_dtype_is_packed_where_it_lies) {
  const Tensor weight = there(random_matrix(5, 9, DType::bf16, 1));
  EXPECT_EQ(pack_weight(weight, DType::bf16).dense().raw(), weight.raw());
  const PackedWeight wide = pack_weight(weight, DType::f32);
  EXPECT_EQ(wide.dense().dtype(), DType::f32);
  EXPECT_EQ(wide.dense().stride(0), 12);  // 48 bytes
}

TEST_P(MatmulDevice, what_does_not_fit_is_named) {
  const Tensor x = Tensor::zeros({3, 8}, DType::f32), out = room(3, 5, DType::f32);
  const auto error = [&](const auto& call) -> std::string {
    try {
      call();
    } catch (const ShapeError& e) {
      return e.what();
    }
    return {};
  };
  const std::string where = to_string(device());
  const PackedWeight for_the_cpu = pack_weight(Tensor::zeros({5, 8}, DType::f32), DType::f32);
  EXPECT_EQ(error([&] { linear_forward(out, there(x), for_the_cpu); }),
            "linear_forward: weight: expected a weight on " + where + ", found f32[5, 8] packed for cpu");
  EXPECT_EQ(error([&] {
              linear_forward(out, there(x), Tensor::zeros({5, 8}, DType::f32));
            }),
            "linear_forward: weight: expected a tensor on " + where + ", found f32[5, 8] on cpu");
  EXPECT_EQ(error([&] {
              linear_forward(out, x, Tensor::zeros({5, 8}, DType::f32));
            }),
            "linear_forward: out: expected a tensor on cpu, found f32[3, 5] on " + where);
  const Tensor wide = Tensor::zeros({3, 8}, DType::f64, device());
  EXPECT_EQ(error([&] { linear_forward(out, wide, wide); }),
            "linear_forward: x: expected dtype f32, bf16, f16 or (on cpu) f64, found f64[3, 8] on " + where);
  EXPECT_NE(error([&] { PackedWeight::allocate(2, 2, DType::f64, MemoryTag::weights, device()); }), "");
  EXPECT_NE(error([&] { for_the_cpu.dense(); }), "");
}

}  // namespace
}  // namespace lathe::kernels
