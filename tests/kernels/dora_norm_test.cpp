// DoRA's norms: against the f64 reference everywhere, the promised order of sums bit for bit, rows that vanish, and
// what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/dora_norm/reference.h"
#include "tests/kernels/dora_norm_cases.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(dora_norm_operations());

using kernels::DoraNorm;
using kernels::moved;

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor one = moved(a, {}), other = moved(b, {});
  return one.nbytes() == other.nbytes() && std::memcmp(one.raw(), other.raw(), static_cast<size_t>(one.nbytes())) == 0;
}

Tensor random_tensor(const Shape& shape, DType dtype, uint64_t seed) {
  const Tensor values = Tensor::empty(shape, DType::f32);
  RandomStream random(seed, RandomPurpose::test);
  for (float& value : values.span<float>()) value = random.normal();
  return kernels::cast(values, dtype);
}

// So that all but a trillionth of what is added to it is taken away: roundings of f64 show in f32.
void cancel(const DoraNorm& call) {
  const int64_t rows = call.b.dim(0), rank = call.b.dim(1);
  const double s = call.scaling;
  const Tensor b = kernels::cast(call.b, DType::f64);
  for (int64_t n = 0; n < rows; ++n) {
    double linear = 0, quadratic = 0;
    for (int64_t j = 0; j < rank; ++j) {
      const double factor = b.data<double>()[n * rank + j];
      linear += factor * call.products.data<float>()[j * rows + n];
      for (int64_t k = 0; k < rank; ++k)
        quadratic += factor * b.data<double>()[n * rank + k] * call.gram.data<float>()[j * rank + k];
    }
    const double added = 2 * s * linear + s * s * quadratic;
    call.squares.data<double>()[n] = 1e-12 * std::abs(added) - added;
  }
}

// Of any numbers but for a gram that is symmetric.
DoraNorm random_call(int64_t rows, int64_t rank, DType dtype) {
  DoraNorm call{.norm = Tensor::empty({rows}, DType::f32),
                .inverse = Tensor::empty({rows}, DType::f32),
                .squares = kernels::cast(random_tensor({rows}, DType::f32, 1), DType::f64),
                .products = random_tensor({rank, rows}, DType::f32, 2),
                .gram = random_tensor({rank, rank}, DType::f32, 3),
                .b = random_tensor({rows, rank}, dtype, 4),
                .scaling = 0.3f};
  for (double& square : call.squares.span<double>())
    square = std::abs(square) / 3 + static_cast<double>(rank * rank) / 9;
  float* const gram = call.gram.data<float>();
  for (int64_t j = 0; j < rank; ++j)
    for (int64_t k = 0; k < j; ++k) gram[j * rank + k] = gram[k * rank + j];
  return call;
}

// With results of its own.
DoraNorm on(Device device, const DoraNorm& call) {
  const int64_t rows = call.b.dim(0);
  return {.norm = Tensor::empty({rows}, DType::f32, device),
          .inverse = Tensor::empty({rows}, DType::f32, device),
          .squares = moved(call.squares, device),
          .products = moved(call.products, device),
          .gram = moved(call.gram, device),
          .b = moved(call.b, device),
          .scaling = call.scaling};
}

void expect_same_results(const DoraNorm& call, const DoraNorm& expected, const std::string& where) {
  kernels::dora_norm(call);
  EXPECT_TRUE(same_bits(call.norm, expected.norm)) << where;
  EXPECT_TRUE(same_bits(call.inverse, expected.inverse)) << where;
}

// Calls body(place) on the CPU under each of its sets, and on each device.
template <class Body>
void for_each_place(const Body& body) {
  const kernels::Isa before = kernels::active_isa();
  for (const Place& place : places_for({.name = "dora_norm", .cases = {}, .cuda_body = true})) {
    if (place.isa) kernels::set_active_isa(*place.isa);
    body(place);
  }
  kernels::set_active_isa(before);
}

TEST(DoraNorm, HasOneOrderOfSumsEverywhere) {
  const int threads = thread_count();
  for (const int64_t rank : {1, 7, 8, 16, 21, 35}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const DoraNorm call = random_call(37, rank, dtype);
      cancel(call);
      const DoraNorm expected = on({}, call);
      kernels::reference::dora_norm(expected);
      for_each_place([&](const Place& place) {
        set_thread_count(rank % 2 == 0 ? 3 : 1);
        expect_same_results(on(place.device, call), expected, place.name() + " of rank " + std::to_string(rank));
      });
    }
  }
  set_thread_count(threads);
}

TEST(RowSquares, AreSummedOneAfterAnotherOnTheCpu) {
  for (const int64_t columns : {1, 15, 16, 33, 1000}) {
    const Tensor rows = random_tensor({3, columns}, DType::f32, 5);
    const Tensor expected = Tensor::empty({3}, DType::f64);
    kernels::reference::row_squares(expected, rows);
    for_each_place([&](const Place& place) {
      const Tensor squares = Tensor::empty({3}, DType::f64, place.device);
      kernels::row_squares(squares, moved(rows, place.device));
      if (place.isa) {
        EXPECT_TRUE(same_bits(squares, expected)) << place.name() << " " << columns;
      }
    });
  }
}

// A row that the adapter takes away, one that was nothing, and one of which roundings leave less than nothing.
TEST(DoraNorm, OfARowThatVanishesIsZeroAndSoIsItsInverse) {
  const double squares[] = {4, 0, 4 - 1e-9, 9};
  const float products[] = {-2, 0, -2, 0}, gram[] = {1}, b[] = {2, 0, 2, 0};
  for_each_place([&](const Place& place) {
    const DoraNorm call = on(place.device, {.norm = {},
                                            .inverse = {},
                                            .squares = Tensor::of<double>(squares, {4}),
                                            .products = Tensor::of<float>(products, {1, 4}),
                                            .gram = Tensor::of<float>(gram, {1, 1}),
                                            .b = Tensor::of<float>(b, {4, 1})});
    kernels::dora_norm(call);
    const Tensor norm = moved(call.norm, {}), inverse = moved(call.inverse, {});
    for (const int64_t n : {0, 1, 2}) {
      EXPECT_EQ(norm.data<float>()[n], 0.0f) << place.name() << " " << n;
      EXPECT_EQ(inverse.data<float>()[n], 0.0f) << place.name() << " " << n;
    }
    EXPECT_EQ(norm.data<float>()[3], 3.0f);
    EXPECT_EQ(inverse.data<float>()[3], 1.0f / 3.0f);
  });
}

TEST(DoraNorm, WritesOnlyWhatIsAskedFor) {
  const DoraNorm call = random_call(5, 3, DType::f32), expected = on({}, call);
  kernels::reference::dora_norm(expected);
  for_each_place([&](const Place& place) {
    DoraNorm alone = on(place.device, call);
    const Tensor norm = std::exchange(alone.norm, Tensor());
    kernels::dora_norm(alone);
    EXPECT_TRUE(same_bits(alone.inverse, expected.inverse)) << place.name();
    alone.norm = norm;
    alone.inverse = {};
    kernels::dora_norm(alone);
    EXPECT_TRUE(same_bits(alone.norm, expected.norm)) << place.name();
  });
}

TEST(DoraNorm, RefusesWhatDoesNotFit) {
  const auto refuses = [](const auto& change) {
    DoraNorm call = random_call(5, 3, DType::bf16);
    change(call);
    EXPECT_THROW(kernels::dora_norm(call), ShapeError);
  };
  refuses([](DoraNorm& c) { c.squares = kernels::cast(c.squares, DType::f32); });
  refuses([](DoraNorm& c) { c.products = Tensor::empty({5, 3}, DType::f32); });
  refuses([](DoraNorm& c) { c.gram = kernels::cast(c.gram, DType::bf16); });
  refuses([](DoraNorm& c) { c.b = {}; });
  refuses([](DoraNorm& c) { c.norm = Tensor::empty({4}, DType::f32); });
  refuses([](DoraNorm& c) { c.inverse = moved(c.inverse, {DeviceKind::simt}); });
  EXPECT_THROW(kernels::row_squares(Tensor::empty({3}, DType::f32), Tensor::zeros({3, 4}, DType::f32)), ShapeError);
  EXPECT_THROW(kernels::row_squares(Tensor::empty({2}, DType::f64), Tensor::zeros({3, 4}, DType::f32)), ShapeError);
}

}  // namespace
}  // namespace lathe::testing
