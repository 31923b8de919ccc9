// DoRA's norms of weights however they are held: how far they are off, when they are made again, and that a device is
// not waited for.
#include "nn/dora.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"
#include "tests/kernels/ggml_blocks.h"

namespace lathe::nn {
namespace {

using lathe::testing::random_matrix;
using lathe::testing::RandomBlocks;
using lathe::testing::same_bits;

// More rows than are squared at a time; some multiples of a block of codes, and of a tile of rows.
constexpr int64_t rows = 300, columns = 96, rank = 6;
constexpr float scaling = 0.5f;

enum class Held { packed, dense, nf4, int8, q8_0, iq4_nl };

struct Form {
  const char* name;
  Held held;
  DType dtype;
};

autograd::LinearWeight weight_of(const Form& form, Device device) {
  const Tensor values = random_matrix(rows, columns, DType::f32, 1);
  const auto there = [&](DType dtype) { return kernels::moved(kernels::cast(values, dtype), device); };
  const auto coded = [&](kernels::QuantizedFormat format) {
    return kernels::QuantizedWeight::quantize(there(DType::f32), format);
  };
  const auto blocks = [&](kernels::GgmlFormat format) {
    const RandomBlocks random(format, rows, columns, form.dtype, 1);
    return device.kind == DeviceKind::cpu ? random.weight : random.on(device);
  };
  switch (form.held) {
    case Held::packed: return kernels::pack_weight(there(form.dtype), form.dtype);
    case Held::dense: return there(form.dtype);
    case Held::nf4: return coded(kernels::QuantizedFormat::nf4);
    case Held::int8: return coded(kernels::QuantizedFormat::int8);
    case Held::q8_0: return blocks(kernels::GgmlFormat::q8_0);
    default: return blocks(kernels::GgmlFormat::iq4_nl);
  }
}

class DoraNormsOf : public ::testing::TestWithParam<std::tuple<DeviceKind, Form>> {
 protected:
  void SetUp() override {
    if (const std::string why = kernels::why_unavailable(device()); !why.empty()) GTEST_SKIP() << why;
    if (form().dtype == DType::f64 && device().kind != DeviceKind::cpu) GTEST_SKIP() << "f64 is the CPU's";
  }
  Device device() const { return {std::get<0>(GetParam())}; }
  Form form() const { return std::get<1>(GetParam()); }
  Tensor factor(int64_t height, int64_t width, uint64_t seed) const {
    return kernels::moved(random_matrix(height, width, form().dtype, seed), device());
  }
};

INSTANTIATE_TEST_SUITE_P(
    , DoraNormsOf,
    ::testing::Combine(
        ::testing::Values(DeviceKind::cpu, DeviceKind::simt, DeviceKind::cuda),
        ::testing::Values(Form{"packed_f32", Held::packed, DType::f32}, Form{"packed_bf16", Held::packed, DType::bf16},
                          Form{"packed_f16", Held::packed, DType::f16}, Form{"packed_f64", Held::packed, DType::f64},
                          Form{"dense_bf16", Held::dense, DType::bf16}, Form{"nf4_bf16", Held::nf4, DType::bf16},
                          Form{"int8_f16", Held::int8, DType::f16}, Form{"q8_0_bf16", Held::q8_0, DType::bf16},
                          Form{"iq4_nl_f32", Held::iq4_nl, DType::f32})),
    [](const auto& info) {
      return to_string(Device{std::get<0>(info.param)}).substr(0, 4) + "_" + std::get<1>(info.param).name;
    });

double at(const Tensor& matrix, int64_t row, int64_t column) {
  return matrix.data<double>()[row * matrix.dim(1) + column];
}
double length(const Tensor& matrix, int64_t row) {
  double sum = 0;
  for (int64_t k = 0; k < matrix.dim(1); ++k) sum += at(matrix, row, k) * at(matrix, row, k);
  return std::sqrt(sum);
}
Tensor in_f64(const Tensor& tensor) { return kernels::cast(kernels::moved(tensor, {}), DType::f64); }

// What kernels/dora_norm/dora_norm.h promises, against W + s·B·A itself. Some rows of B are 100 times as long, so that
// the adapter outweighs the weight.
TEST_P(DoraNormsOf, AreOffByNoMoreThanIsPromised) {
  const autograd::LinearWeight weight = weight_of(form(), device());
  const Tensor a = factor(rank, columns, 2);
  Tensor b = random_matrix(rows, rank, DType::f32, 3);
  for (int64_t i = 0; i < b.numel(); ++i) b.data<float>()[i] *= i / rank % 3 == 0 ? 1.0f : 0.01f;
  b = kernels::moved(kernels::cast(b, form().dtype), device());
  const DoraNorms dora(weight, form().dtype);
  const Tensor norms = in_f64(dora.norms(a, b, scaling)), inverse = in_f64(dora.inverse(a, b, scaling));
  const Tensor w = kernels::cast(weight_rows(weight.value(), form().dtype, 0, rows), DType::f64);
  const Tensor wide_a = in_f64(a), wide_b = in_f64(b);
  const bool by_blocks = device().kind == DeviceKind::cpu && weight.value().ggml() != nullptr;
  const double unit = form().dtype == DType::f64 ? 0x1p-53 : 0x1p-24;
  const double of_blocks = 0x1p-15 + (form().dtype == DType::bf16 ? 0x1p-9 : 0);
  const double epsilon = static_cast<double>(columns) * unit + (by_blocks ? of_blocks : 0);
  int64_t noticed = 0;
  for (int64_t n = 0; n < rows; ++n) {
    double square = 0, added = 0;
    for (int64_t j = 0; j < rank; ++j) added += scaling * std::abs(at(wide_b, n, j)) * length(wide_a, j);
    for (int64_t k = 0; k < columns; ++k) {
      double value = at(w, n, k);
      for (int64_t j = 0; j < rank; ++j) value += scaling * at(wide_b, n, j) * at(wide_a, j, k);
      square += value * value;
    }
    const double expected = std::sqrt(square), found = norms.data<double>()[n];
    const double bound = epsilon * added * (2 * length(w, n) + added) / expected + 4 * unit * expected;
    EXPECT_NEAR(found, expected, bound) << n;
    EXPECT_NEAR(inverse.data<double>()[n], 1 / found, unit / found) << n;
    noticed += std::abs(expected - length(w, n)) > bound ? 1 : 0;
  }
  EXPECT_GT(noticed, by_blocks ? rows / 2 : rows - rows / 20) << "of rows that would not pass without an adapter";
}

struct Waits final : kernels::QueuedWorkListener {
  int64_t launches = 0, waits = 0;
  void queued(const char* name, int64_t) override {
    ++(name == kernels::waited || name == kernels::queued_copy ? waits : launches);
  }
};

TEST_P(DoraNormsOf, AreMadeAgainInTheirPlaceWhenAnAdapterChangesAndNobodyWaits) {
  const autograd::LinearWeight weight = weight_of(form(), device());
  const Tensor a = factor(rank, columns, 2), b = factor(rows, rank, 3);
  const DoraNorms dora(weight, form().dtype);
  const Tensor place = dora.inverse(a, b, scaling), first = kernels::moved(place, {}).clone();
  for (const Tensor& changed : {a, b}) {
    kernels::scale(changed, changed, 1.5);
    const Waits before;
    EXPECT_TRUE(dora.inverse(a, b, scaling).storage() == place.storage());
    EXPECT_EQ(before.launches, 0) << "nobody has said that it has changed";
    changed.bump_version();
    const Waits queued;
    EXPECT_TRUE(dora.inverse(a, b, scaling).storage() == place.storage());
    EXPECT_EQ(queued.waits, 0);
    EXPECT_EQ(queued.launches > 0, device().kind != DeviceKind::cpu);
    EXPECT_FALSE(same_bits(kernels::moved(place, {}), first));
    const DoraNorms fresh(weight, form().dtype);
    EXPECT_TRUE(same_bits(kernels::moved(fresh.inverse(a, b, scaling), {}), kernels::moved(place, {})));
  }
}

}  // namespace
}  // namespace lathe::nn
