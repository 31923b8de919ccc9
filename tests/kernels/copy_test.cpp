// copy, fill and cast: every 16-bit pattern and the edges of rounding, bit for bit, on every device and instruction
// set; strided views.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/copy/reference.h"
#include "kernels/simd/isa.h"
#include "tests/kernels/copy_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {
namespace {

using testing::Place;

LATHE_CHECK_OPERATIONS(testing::copy_operations());

class Everywhere : public ::testing::TestWithParam<Place> {
 protected:
  void SetUp() override {
    if (GetParam().isa) set_active_isa(*GetParam().isa);
  }
  void TearDown() override { set_active_isa(before_); }

  static Device device() { return GetParam().device; }
  // A contiguous tensor of the CPU, on the device and back.
  static Tensor moved(const Tensor& tensor, Device to) {
    if (tensor.device() == to) return tensor;
    const Tensor there = Tensor::empty(tensor.shape(), tensor.dtype(), to);
    copy(there, tensor);
    return there;
  }
  static void expect_copies_exactly(const Tensor& in);

 private:
  Isa before_ = active_isa();
};
INSTANTIATE_TEST_SUITE_P(Copy, Everywhere, ::testing::ValuesIn(testing::places_for({.cuda_body = true})),
                         [](const auto& place) { return place.param.name(); });

constexpr DType floating[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

// Same value and sign, or both NaN: which NaN is the instruction set's business.
void expect_same(const Tensor& found, const Tensor& expected, const Tensor& in) {
  const Tensor f = Tensor::empty(found.shape(), DType::f64), e = Tensor::empty(found.shape(), DType::f64);
  const Tensor source = Tensor::empty(found.shape(), DType::f64);
  reference::copy(f, found);
  reference::copy(e, expected);
  reference::copy(source, in);
  int64_t wrong = 0;
  for (int64_t i = 0; i < f.numel() && wrong < 3; ++i) {
    const double a = f.data<double>()[i], b = e.data<double>()[i];
    if ((std::isnan(a) && std::isnan(b)) || std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b)) continue;
    ++wrong;
    ADD_FAILURE() << name_of(in.dtype()) << " to " << name_of(found.dtype()) << ", element " << i << ": "
                  << source.data<double>()[i] << " became " << a << ", expected " << b;
  }
}

void Everywhere::expect_copies_exactly(const Tensor& in) {
  const Tensor there = moved(in, device());
  for (const DType dtype : floating) {
    const Tensor out = Tensor::empty(in.shape(), dtype, device()), expected = Tensor::empty(in.shape(), dtype);
    copy(out, there);
    reference::copy(expected, in);
    expect_same(moved(out, {}), expected, in);
  }
}

TEST_P(Everywhere, CastsEvery16BitPattern) {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Tensor all = Tensor::empty({65536}, dtype);
    for (int64_t i = 0; i < 65536; ++i) static_cast<uint16_t*>(all.raw())[i] = static_cast<uint16_t>(i);
    expect_copies_exactly(all);
  }
}

TEST_P(Everywhere, CastsF32AtTheEdgesOfRounding) {
  // Around every value of f16 and bf16: the value, the midpoints to its neighbours, and one step to either side of
  // each.
  std::vector<float> edges;
  const auto add_around = [&](float value, float next) {
    const float middle = static_cast<float>((static_cast<double>(value) + static_cast<double>(next)) / 2);
    for (float x : {value, middle}) {
      edges.insert(edges.end(), {x, std::nextafterf(x, INFINITY), std::nextafterf(x, -INFINITY)});
    }
  };
  const auto value = [](DType dtype, int pattern) {
    const uint16_t bits = static_cast<uint16_t>(pattern);
    return dtype == DType::f16 ? static_cast<float>(std::bit_cast<f16>(bits))
                               : static_cast<float>(std::bit_cast<bf16>(bits));
  };
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (int pattern = 0; pattern < 65535; pattern += dtype == DType::f16 ? 1 : 3) {
      add_around(value(dtype, pattern), value(dtype, pattern + 1));
    }
  }
  expect_copies_exactly(Tensor::of<float>(edges, {static_cast<int64_t>(edges.size())}));
}

TEST_P(Everywhere, CastsRowsOfAnyLength) {
  RandomStream random(3, RandomPurpose::test);
  for (const int64_t n : {1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 576}) {
    const Tensor in = Tensor::empty({n}, DType::f32);
    for (float& x : in.span<float>()) x = std::bit_cast<float>(random.next_u32());
    expect_copies_exactly(in);
  }
}

// f64 → f32 → bf16 would round twice: 1 + 2^-9 + 2^-40 lies above the midpoint of two bf16, its f32 exactly on it.
TEST_P(Everywhere, RoundsF64Once) {
  const double values[] = {
      1.0 + 0x1p-8 + 0x1p-40, 1.0 + 0x1p-8, -(1.0 + 0x1p-8 + 0x1p-40), 1.0 + 0x1p-11 + 0x1p-40, 1e300, -1e300, 0x1p-150,
      0x1p-25 + 0x1p-60};
  const Tensor in = moved(Tensor::of<double>(values, {8}), device());
  const Tensor b = moved(cast(in, DType::bf16), {}), h = moved(cast(in, DType::f16), {});
  EXPECT_EQ(static_cast<float>(b.data<bf16>()[0]), 1.0f + 0x1p-7f);
  EXPECT_EQ(static_cast<float>(b.data<bf16>()[1]), 1.0f);
  EXPECT_EQ(static_cast<float>(b.data<bf16>()[2]), -(1.0f + 0x1p-7f));
  EXPECT_EQ(static_cast<float>(h.data<f16>()[3]), 1.0f + 0x1p-10f);
  EXPECT_EQ(static_cast<float>(b.data<bf16>()[4]), INFINITY);
  EXPECT_EQ(static_cast<float>(h.data<f16>()[5]), -INFINITY);
  EXPECT_EQ(static_cast<float>(b.data<bf16>()[6]), 0.0f);
  EXPECT_EQ(static_cast<float>(h.data<f16>()[7]), 0x1p-24f);
}

TEST_P(Everywhere, StridedViewsOnBothSides) {
  RandomStream random(11, RandomPurpose::test);
  const Tensor values = Tensor::empty({5, 7, 6, 9}, DType::f32);
  for (float& x : values.span<float>()) x = random.normal();
  const auto views_of = [](const Tensor& source) {
    return std::vector<Tensor>{source.transpose(1, 3), source.transpose(0, 2),
                               source.slice(3, 2, 7),  source.slice(1, 3, 4),
                               source.select(2, 4),    source.slice(0, 1, 4).transpose(2, 3),
                               source.slice(2, 0, 0),  source.select(0, 1).select(0, 2),
                               source.slice(3, 4, 5)};
  };
  const std::vector<Tensor> here = views_of(values), there = views_of(moved(values, device()));
  for (size_t i = 0; i < here.size(); ++i) {
    const Tensor& view = here[i];
    for (const DType dtype : floating) {
      for (const bool strided_out : {false, true}) {
        // Strided: a transposed home of the same shape.
        std::vector<int64_t> dims(view.shape().dims().begin(), view.shape().dims().end());
        const int last = static_cast<int>(dims.size()) - 1;
        if (strided_out) std::swap(dims.front(), dims.back());
        const Tensor home = Tensor::zeros(Shape(dims), dtype, device()), expected = Tensor::zeros(view.shape(), dtype);
        copy(strided_out ? home.transpose(0, last) : home, there[i]);
        reference::copy(expected, view);
        const Tensor found = moved(home, {});
        expect_same(strided_out ? found.transpose(0, last) : found, expected, view);
      }
    }
  }
}

TEST_P(Everywhere, LeavesWhatLiesBetweenRowsAlone) {
  const Tensor home = Tensor::empty({4, 10}, DType::f32, device());
  fill(home, 7.0);
  fill(home.slice(1, 2, 5), -1.0);
  copy(home.slice(1, 6, 9), home.slice(1, 2, 5));
  const Tensor found = moved(home, {});
  for (int64_t i = 0; i < 40; ++i) {
    const int64_t column = i % 10;
    const bool written = (column >= 2 && column < 5) || (column >= 6 && column < 9);
    EXPECT_EQ(found.data<float>()[i], written ? -1.0f : 7.0f) << i;
  }
}

TEST_P(Everywhere, CopiesTheBitsOfEveryDtype) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i64, DType::i32, DType::u32,
                            DType::u16, DType::u8, DType::i8, DType::boolean}) {
    const Tensor in = Tensor::zeros({6, 5}, dtype);
    for (int64_t i = 0; i < in.nbytes(); ++i) {
      static_cast<unsigned char*>(in.raw())[i] =
          static_cast<unsigned char>(dtype == DType::boolean ? i % 2 : i * 37 + 11);
    }
    const Tensor turned = Tensor::zeros({5, 6}, dtype, device()), back = Tensor::zeros({6, 5}, dtype, device());
    copy(turned, moved(in, device()).transpose(0, 1));
    copy(back, turned.transpose(0, 1));
    const Tensor found = moved(back, {});
    EXPECT_EQ(std::memcmp(found.raw(), in.raw(), static_cast<size_t>(in.nbytes())), 0) << name_of(dtype);
  }
}

TEST_P(Everywhere, CutsLongRunsAmongThreads) {
  const int64_t n = 3 * 32768 + 5;
  const Tensor in = Tensor::empty({n}, DType::f32);
  RandomStream random(2, RandomPurpose::test);
  for (float& x : in.span<float>()) x = random.normal();
  const int threads = thread_count();
  for (const int count : {1, 2, 3}) {
    set_thread_count(count);
    expect_copies_exactly(in);
  }
  set_thread_count(threads);
}

TEST_P(Everywhere, FillWritesTheValueInEveryDtype) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i64, DType::i32, DType::u32,
                            DType::u16, DType::u8, DType::i8, DType::boolean}) {
    const bool is_signed = dtype != DType::u32 && dtype != DType::u16 && dtype != DType::u8 && dtype != DType::boolean;
    const double value = dtype == DType::boolean ? 1 : is_signed ? -3 : 200;
    const Tensor home = Tensor::zeros({3, 21}, dtype, device());
    fill(home.slice(1, 1, 20), value);
    const Tensor found = moved(home, {});
    for (int64_t i = 0; i < found.numel(); ++i) {
      const bool written = i % 21 >= 1 && i % 21 < 20;
      const auto* element = static_cast<const std::byte*>(found.raw()) + i * size_of(dtype);
      EXPECT_EQ(testing::load_element(element, dtype), written ? value : 0.0) << name_of(dtype) << " " << i;
    }
  }
  const Tensor f = Tensor::empty({3, 5}, DType::f16, device());
  fill(f, 0.1);
  const Tensor found = moved(f, {});
  for (const f16 x : found.span<f16>()) EXPECT_EQ(static_cast<float>(x), static_cast<float>(f16(0.1f)));
}

TEST(Cast, ReturnsTheTensorItselfWhereThereIsNothingToDo) {
  const Tensor in = Tensor::zeros({4, 6}, DType::f32);
  EXPECT_EQ(cast(in, DType::f32).raw(), in.raw());
  const Tensor turned = cast(in.transpose(0, 1), DType::f32);
  EXPECT_TRUE(turned.is_contiguous());
  EXPECT_NE(turned.raw(), in.raw());
}

TEST(Copy, RefusesShapesAndDtypesThatDoNotFit) {
  const Tensor f = Tensor::zeros({2, 3}, DType::f32);
  EXPECT_THROW(copy(f, Tensor::zeros({3, 2}, DType::f32)), ShapeError);
  EXPECT_THROW(copy(f, Tensor::zeros({2, 3}, DType::i32)), ShapeError);
  EXPECT_THROW(copy(Tensor::zeros({2, 3}, DType::u8), f), ShapeError);
  EXPECT_THROW(copy(f, Tensor{}), ShapeError);
  const Tensor there = Tensor::zeros({2, 3}, DType::bf16, {DeviceKind::simt});
  EXPECT_THROW(copy(f, there), ShapeError);
  EXPECT_THROW(copy(there, Tensor::zeros({3, 2}, DType::bf16).transpose(0, 1)), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
