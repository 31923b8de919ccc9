#include "core/tensor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "core/error.h"

namespace lathe {
namespace {

Tensor counting(const Shape& shape) {
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::of<float>(values, shape);
}

std::vector<float> values_of(const Tensor& tensor) {
  const Tensor copy = tensor.clone();
  const auto span = copy.span<float>();
  return {span.begin(), span.end()};
}

TEST(Tensor, IsUndefinedUntilMade) {
  const Tensor tensor;
  EXPECT_FALSE(tensor.defined());
  EXPECT_THROW(tensor.data<float>(), ShapeError);
  EXPECT_EQ(describe(tensor), "undefined tensor");
}

TEST(Tensor, ZerosAreZeroAndAligned) {
  {  // Fill and free a block of the same class first, so that zeros() has something to clear.
    const Tensor dirty = Tensor::empty({5, 7}, DType::f32);
    for (float& value : dirty.span<float>()) value = 3.0f;
  }
  const Tensor zeros = Tensor::zeros({5, 7}, DType::f32);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(zeros.raw()) % 64, 0u);
  for (const float value : zeros.span<float>()) EXPECT_EQ(value, 0.0f);
  EXPECT_EQ(zeros.nbytes(), 5 * 7 * 4);
  EXPECT_EQ(describe(zeros), "f32[5, 7] on cpu");
}

TEST(Tensor, OfNoElementsWorksEverywhere) {
  const Tensor none = Tensor::zeros({3, 0, 2}, DType::bf16);
  EXPECT_TRUE(none.defined());
  EXPECT_NE(none.raw(), nullptr);
  EXPECT_TRUE(none.is_contiguous());
  EXPECT_EQ(none.clone().shape(), none.shape());
  EXPECT_EQ(none.transpose(0, 2).clone().shape(), (Shape{2, 0, 3}));
  EXPECT_TRUE(none.span<bf16>().empty());
}

TEST(Tensor, TypedAccessChecksTheType) {
  const Tensor tensor = Tensor::zeros({2}, DType::bf16);
  EXPECT_NO_THROW(tensor.data<bf16>());
  EXPECT_THROW(tensor.data<float>(), ShapeError);
  EXPECT_THROW(tensor.data<f16>(), ShapeError) << "the same size is not the same type";
}

TEST(Tensor, OfChecksTheNumberOfValues) {
  const std::vector<float> five(5);
  EXPECT_THROW(Tensor::of<float>(five, {2, 3}), ShapeError);
}

TEST(Tensor, SlicesSelectsAndTransposesAreViews) {
  const Tensor t = counting({2, 3, 4});
  EXPECT_EQ(values_of(t.slice(1, 1, 3)),
            (std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23}));
  EXPECT_EQ(t.slice(-1, -2, 4).shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(values_of(t.select(0, 1).select(0, -1)), (std::vector<float>{20, 21, 22, 23}));
  EXPECT_EQ(values_of(t.select(2, 3)), (std::vector<float>{3, 7, 11, 15, 19, 23}));
  EXPECT_EQ(values_of(t.select(0, 0).transpose(0, 1)), (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  EXPECT_EQ(t.transpose(0, 2).shape(), (Shape{4, 3, 2}));
  EXPECT_EQ(t.select(0, 1).storage(), t.storage());
  EXPECT_EQ(t.slice(0, 1, 1).numel(), 0);
}

TEST(Tensor, ContiguityIgnoresStridesThatAreNeverTaken) {
  const Tensor t = counting({4, 1, 6});
  EXPECT_TRUE(t.is_contiguous());
  EXPECT_TRUE(t.transpose(0, 1).is_contiguous());
  EXPECT_FALSE(t.transpose(0, 2).is_contiguous());
  EXPECT_TRUE(t.slice(0, 1, 3).is_contiguous());
  EXPECT_FALSE(t.slice(2, 0, 5).is_contiguous());
  EXPECT_TRUE(t.slice(0, 2, 3).slice(2, 1, 3).is_contiguous());
}

TEST(Tensor, ViewInfersOneExtent) {
  const Tensor t = counting({2, 6});
  EXPECT_EQ(t.view({3, -1}).shape(), (Shape{3, 4}));
  EXPECT_EQ(t.view({-1}).shape(), Shape{12});
  EXPECT_EQ(t.view(Shape{12}).raw(), t.raw());
  EXPECT_THROW(t.view({5, -1}), ShapeError);
  EXPECT_THROW(t.view({-1, -1}), ShapeError);
  EXPECT_THROW(t.view({0, -1}), ShapeError);
  EXPECT_THROW(t.view({1, 1, 1, 1, 1, 1, -1}), ShapeError);
  EXPECT_THROW(t.view({13}), ShapeError);
  EXPECT_THROW(t.transpose(0, 1).view({12}), ShapeError);
}

TEST(Tensor, ViewsOutsideTheShapeAreRefused) {
  const Tensor t = counting({2, 3});
  EXPECT_THROW(t.slice(2, 0, 1), ShapeError);
  EXPECT_THROW(t.slice(1, 0, 4), ShapeError);
  EXPECT_THROW(t.slice(1, 2, 1), ShapeError);
  EXPECT_THROW(t.slice(1, -4, 1), ShapeError);
  EXPECT_THROW(t.select(0, 2), ShapeError);
  EXPECT_THROW(t.select(0, -3), ShapeError);
  EXPECT_THROW(t.transpose(0, 2), ShapeError);
  EXPECT_THROW((void)t.transpose(0, 1).span<float>(), ShapeError);
}

TEST(Tensor, ClonesOfStridedViewsKeepEveryType) {
  const std::vector<uint8_t> bytes = {0, 1, 2, 3, 4, 5};
  const Tensor t = Tensor::of<uint8_t>(bytes, {2, 3}).transpose(0, 1).clone();
  const auto span = t.span<uint8_t>();
  EXPECT_EQ((std::vector<uint8_t>(span.begin(), span.end())), (std::vector<uint8_t>{0, 3, 1, 4, 2, 5}));
}

TEST(Tensor, FromStorageStaysInsideIt) {
  alignas(64) std::array<std::byte, 64> memory{};
  const auto keep = std::make_shared<int>(1);
  const auto storage = Storage::wrap(memory.data(), 64, {}, keep);
  EXPECT_EQ(keep.use_count(), 2);
  EXPECT_EQ(Tensor::from_storage(storage, 8, {7}, DType::i64).data<int64_t>(),
            reinterpret_cast<int64_t*>(memory.data() + 8));
  EXPECT_EQ(Tensor::from_storage(storage, 64, {0}, DType::f32).numel(), 0);
  EXPECT_THROW(Tensor::from_storage(storage, 8, {8}, DType::i64), ShapeError);
  EXPECT_THROW(Tensor::from_storage(storage, -8, {1}, DType::i64), ShapeError);
  EXPECT_THROW(Tensor::from_storage(storage, 65, {0}, DType::u8), ShapeError);
  EXPECT_THROW(Tensor::from_storage(storage, 2, {1}, DType::f32), ShapeError) << "not aligned to 4";
  EXPECT_THROW(Tensor::from_storage(storage, 0, {int64_t{1} << 61}, DType::f64), ShapeError) << "2^64 bytes";
  EXPECT_THROW(Tensor::from_storage(nullptr, 0, {1}, DType::f32), ShapeError);
}

TEST(Tensor, VersionsBelongToTheStorage) {
  const Tensor t = Tensor::zeros({4}, DType::f32);
  const Tensor view = t.slice(0, 0, 2);
  const uint64_t before = t.version();
  view.bump_version();
  EXPECT_EQ(t.version(), before + 1);
  EXPECT_EQ(t.clone().version(), 0u);
}

TEST(Tensor, OnADeviceThatWasNotBuiltSaysSo) {
  try {
    // No test of core registers CUDA.
    Tensor::empty({1}, DType::f32, {DeviceKind::cuda, 0});
    FAIL();
  } catch (const ResourceError& error) {
    EXPECT_NE(std::string(error.what()).find("built without CUDA"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lathe
