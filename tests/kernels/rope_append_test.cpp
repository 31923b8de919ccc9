// Norms, rotation and append in one: the bits of the operations one after another, in q and in the pages.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/rope_append/rope_append.h"
#include "kernels/simt/options.h"
#include "tests/kernels/every_device.h"
#include "tests/kernels/rope_append_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {

LATHE_CHECK_OPERATIONS(lathe::testing::rope_append_operations());

namespace {

constexpr int64_t heads = 4, kv_heads = 2, page_size = 16, page_count = 4, positions_most = 64;

struct Shapes {
  int64_t head_dim, turned;  // turned 0: no tables
  bool normed;
  bool rows_of_queries = false;  // of the tables, behind those of keys
};

class RopeAppend : public OnEveryDevice {
 protected:
  Tensor copy_of(const Tensor& tensor) const {
    const Tensor result = Tensor::empty(tensor.shape(), tensor.dtype(), tensor.device());
    copy(result, tensor);
    return result;
  }
  KvPages pages_of(DType dtype, int64_t head_dim) const {
    const auto zeros = [&](const Shape& shape, DType of) { return moved(Tensor::zeros(shape, of), device()); };
    const Shape shape{page_count, kv_heads, page_size, head_dim}, scales{page_count, kv_heads, page_size};
    KvPages pages{zeros(shape, dtype), zeros(shape, dtype), {}, {}};
    if (dtype == DType::i8) pages.k_scales = zeros(scales, DType::f32), pages.v_scales = zeros(scales, DType::f32);
    return pages;
  }
  NewHeads heads_of(const Shapes& shapes, DType dtype, int64_t tokens, const std::vector<int32_t>& positions) {
    NewHeads made{.q = random({tokens, heads, shapes.head_dim}, dtype),
                  .k = random({tokens, kv_heads, shapes.head_dim}, dtype),
                  .v = random({tokens, kv_heads, shapes.head_dim}, dtype),
                  .eps = 1e-5f,
                  .positions = Tensor::of<int32_t>(positions, {tokens})};
    if (shapes.normed) {
      made.q_norm = random({shapes.head_dim}, dtype);
      made.k_norm = random({shapes.head_dim}, dtype);
    }
    if (shapes.turned > 0) {
      const int64_t rows = shapes.rows_of_queries ? 2 * positions_most : positions_most;
      made.cos_table = random({rows, shapes.turned / 2}, DType::f32);
      made.sin_table = random({rows, shapes.turned / 2}, DType::f32);
      made.query_row = rows - positions_most;
    }
    return made;
  }
};

INSTANTIATE_TEST_SUITE_P(, RopeAppend, every_device(), name_of_device);

void one_after_another(const KvPages& pages, const NewHeads& heads_before, const PagedBatch& batch) {
  const auto change = [&](const Tensor& x, const Tensor& weight, int64_t first_row) {
    const Tensor rows = x.view({x.dim(0) * x.dim(1), x.dim(2)});
    if (weight.defined()) rms_norm_forward(rows, {}, rows, weight, heads_before.eps);
    if (!heads_before.cos_table.defined()) return;
    const Tensor turned = x.slice(2, 0, 2 * heads_before.cos_table.dim(1));
    const auto rows_of = [&](const Tensor& table) { return table.slice(0, first_row, first_row + positions_most); };
    rope(turned, turned, heads_before.positions, rows_of(heads_before.cos_table), rows_of(heads_before.sin_table),
         RopeDirection::forward);
  };
  change(heads_before.q, heads_before.q_norm, heads_before.query_row);
  change(heads_before.k, heads_before.k_norm, 0);
  kv_append(pages, heads_before.k, heads_before.v, batch);
}

// Heads that fill a warp, that leave lanes idle, of which a part turns, and some without a body on a device.
TEST_P(RopeAppend, has_the_bits_of_the_operations_one_after_another) {
  const Shapes shapes[] = {{64, 64, false},      {128, 128, true},     {256, 256, true}, {80, 32, true},
                           {32, 0, true},        {48, 0, false},       {24, 24, true},   {96, 24, false},
                           {64, 32, true, true}, {24, 24, false, true}};
  const std::vector<int32_t> bounds{0, 1, 1, 4}, contexts{5, 0, 20}, tables{2, 0, 0, 0, 1, 3}, positions{4, 17, 18, 19};
  const PagedBatch batch(Tensor::of<int32_t>(bounds, {4}), Tensor::of<int32_t>(contexts, {3}),
                         Tensor::of<int32_t>(tables, {3, 2}), {page_count, page_size, device()});
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const DType page_dtype : {DType::bf16, DType::f16, DType::f32, DType::i8}) {
      for (const Shapes& shape : shapes) {
        const NewHeads fused = heads_of(shape, dtype, 4, positions);
        NewHeads apart = fused;
        apart.q = copy_of(fused.q), apart.k = copy_of(fused.k);
        const KvPages pages = pages_of(page_dtype, shape.head_dim), expected = pages_of(page_dtype, shape.head_dim);
        rope_append(pages, fused, batch);
        one_after_another(expected, apart, batch);
        const std::string what = std::string(name_of(dtype)) + " into " + std::string(name_of(page_dtype)) + ", " +
                                 std::to_string(shape.turned) + " of " + std::to_string(shape.head_dim);
        EXPECT_EQ(bytes(fused.q), bytes(apart.q)) << what;
        EXPECT_EQ(bytes(pages.k), bytes(expected.k)) << what;
        EXPECT_EQ(bytes(pages.v), bytes(expected.v)) << what;
        EXPECT_EQ(bytes(pages.k_scales), bytes(expected.k_scales)) << what;
        EXPECT_EQ(bytes(pages.v_scales), bytes(expected.v_scales)) << what;
      }
    }
  }
}

TEST_P(RopeAppend, what_does_not_fit_is_named) {
  const std::vector<int32_t> bounds{0, 1}, contexts{5}, tables{0}, positions{4};
  const PagedBatch batch(Tensor::of<int32_t>(bounds, {2}), Tensor::of<int32_t>(contexts, {1}),
                         Tensor::of<int32_t>(tables, {1, 1}), {page_count, page_size, device()});
  const KvPages pages = pages_of(DType::bf16, 64);
  NewHeads wide = heads_of({64, 64, true}, DType::bf16, 1, positions);
  wide.q_norm = random({32}, DType::bf16);
  EXPECT_THROW(rope_append(pages, wide, batch), ShapeError);
  NewHeads far = heads_of({64, 64, false}, DType::bf16, 1, {positions_most});
  EXPECT_THROW(rope_append(pages, far, batch), ShapeError);
  NewHeads far_among_two = heads_of({64, 64, false, true}, DType::bf16, 1, {positions_most});
  EXPECT_THROW(rope_append(pages, far_among_two, batch), ShapeError);
  NewHeads apart = heads_of({64, 64, false, true}, DType::bf16, 1, positions);
  apart.query_row = positions_most - 1;
  EXPECT_THROW(rope_append(pages, apart, batch), ShapeError);
}

TEST(RopeAppendOnSimt, is_one_launch) {
  const Device simt{DeviceKind::simt};
  const auto zeros = [&](const Shape& shape, DType dtype = DType::bf16) { return Tensor::zeros(shape, dtype, simt); };
  const std::vector<int32_t> bounds{0, 1}, contexts{5}, tables{0}, positions{4};
  const PagedBatch batch(Tensor::of<int32_t>(bounds, {2}), Tensor::of<int32_t>(contexts, {1}),
                         Tensor::of<int32_t>(tables, {1, 1}), {page_count, page_size, simt});
  const Shape shape{page_count, kv_heads, page_size, 64};
  const KvPages pages{zeros(shape), zeros(shape), {}, {}};
  const NewHeads made{.q = zeros({1, heads, 64}),
                      .k = zeros({1, kv_heads, 64}),
                      .v = zeros({1, kv_heads, 64}),
                      .q_norm = zeros({64}),
                      .k_norm = zeros({64}),
                      .positions = Tensor::of<int32_t>(positions, {1}),
                      .cos_table = zeros({positions_most, 32}, DType::f32),
                      .sin_table = zeros({positions_most, 32}, DType::f32)};
  synchronize(simt);
  const int64_t before = simt::launches_run();
  rope_append(pages, made, batch);
  synchronize(simt);
  EXPECT_EQ(simt::launches_run() - before, 1);
}

}  // namespace
}  // namespace lathe::kernels
