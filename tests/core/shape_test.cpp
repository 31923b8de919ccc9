#include "core/shape.h"

#include <gtest/gtest.h>

#include "core/device.h"
#include "core/error.h"

namespace lathe {
namespace {

TEST(Shape, KnowsItsExtents) {
  const Shape shape{2, 3, 5};
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.numel(), 30);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[-1], 5);
  EXPECT_EQ(to_string(shape), "[2, 3, 5]");
  EXPECT_EQ(Shape().numel(), 1);
  EXPECT_EQ(to_string(Shape()), "[]");
  EXPECT_EQ((Shape{4, 0}).numel(), 0);
}

TEST(Shape, EqualityComparesRankAndExtents) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 1}));
}

TEST(Shape, RefusesWhatNoTensorCanHave) {
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), ShapeError);
  EXPECT_THROW((Shape{2, -1}), ShapeError);
  const int64_t huge = int64_t{1} << 31;
  EXPECT_EQ((Shape{huge, huge}).numel(), int64_t{1} << 62);
  EXPECT_THROW((Shape{huge, huge, 2}), ShapeError);
  EXPECT_THROW((Shape{0, huge, huge, 2}), ShapeError) << "its strides would overflow";
  EXPECT_THROW((void)(Shape{2, 3})[2], ShapeError);
  EXPECT_THROW((void)(Shape{2, 3})[-3], ShapeError);
}

TEST(Shape, ErrorsNameTheShape) {
  try {
    Shape{2, -7};
    FAIL();
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("[2, -7]"), std::string::npos) << error.what();
  }
}

TEST(Device, NamesRoundTrip) {
  for (const char* name : {"cpu", "simt", "cuda:0", "cuda:3"}) EXPECT_EQ(to_string(parse_device(name)), name);
  EXPECT_EQ(parse_device("cuda"), (Device{DeviceKind::cuda, 0}));
}

TEST(Device, OtherNamesAreConfigErrors) {
  for (const char* name : {"", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda:99999999999", "CPU"}) {
    EXPECT_THROW(parse_device(name), ConfigError) << name;
  }
}

}  // namespace
}  // namespace lathe
