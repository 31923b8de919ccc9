// gradient_norm: PyTorch's norms, the promised order of the sum bit for bit, in any thread count, instruction set and
// device.
#include "kernels/gradient_norm/gradient_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/gradient_norm/reference.h"
#include "kernels/simd/isa.h"
#include "tests/kernels/gradient_norm_cases.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {
namespace {

LATHE_CHECK_OPERATIONS(lathe::testing::gradient_norm_operations());

constexpr Device simt = {DeviceKind::simt};
Tensor on_simt(const Tensor& from) {
  const Tensor to = Tensor::empty(from.shape(), from.dtype(), simt);
  copy_bytes(simt, to.raw(), {}, from.raw(), from.nbytes());
  return to;
}

Tensor random_tensor(int64_t n, DType dtype) {
  const Tensor values = Tensor::empty({n}, DType::f32);
  RandomStream random(static_cast<uint64_t>(n), RandomPurpose::test);
  for (float& x : values.span<float>()) x = random.normal() * std::exp2f(20 * random.uniform() - 10);
  return cast(values, dtype);
}

TEST(GradientNorm, IsPyTorchs) {
  auto golden = lathe::testing::golden_tensors("kernels/clip_grad_norm.safetensors");
  for (const std::string run : {"clipped", "kept", "tiny"}) {
    std::vector<Tensor> wide, narrow;
    for (const char* i : {"0", "1", "2"}) {
      wide.push_back(golden[run + ".grad." + i]);
      narrow.push_back(cast(wide.back(), DType::f32));
    }
    const double expected = golden[run + ".norm"].data<double>()[0];
    EXPECT_NEAR(gradient_norm(wide), expected, 40 * 0x1p-53 * expected) << run;  // 31 squares and sums
    EXPECT_NEAR(gradient_norm(narrow), expected, 0x1p-24 * expected) << run;     // each element rounded to f32
  }
}

// Squares of f32 and bf16 are exact in f64 and the order is one: the plain body gives the same bits.
TEST(GradientNorm, SumsInTheOrderOfItsSpecification) {
  const Isa before = active_isa();
  const int threads = thread_count();
  for (const int64_t n : {0, 1, 15, 16, 17, 4095, 4096, 4097, 100000}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Tensor x = random_tensor(n, dtype);
      const double expected = reference::sum_of_squares(x);
      for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
        if (!machine_has(isa)) continue;
        set_active_isa(isa);
        for (const int count : {1, 2, 3}) {
          set_thread_count(count);
          EXPECT_EQ(sum_of_squares(x), expected) << n << " " << name_of(dtype) << " " << name_of(isa) << " " << count;
        }
      }
      EXPECT_EQ(sum_of_squares(on_simt(x)), expected) << n << " " << name_of(dtype) << " simt";
    }
  }
  set_active_isa(before);
  set_thread_count(threads);
}

TEST(GradientNorm, HoldsSquaresThatOverflowF32) {
  const float values[] = {3e30f, 4e30f}, broken[] = {1.0f, NAN};
  EXPECT_NEAR(gradient_norm(std::vector<Tensor>{Tensor::of<float>(values, {2})}), 5e30, 5e30 * 0x1p-23);
  EXPECT_TRUE(std::isnan(sum_of_squares(Tensor::of<float>(broken, {2}))));
  EXPECT_EQ(gradient_norm({}), 0.0);
}

TEST(GradientNorm, IsTheSameOfManyTensorsOnADevice) {
  std::vector<Tensor> on_cpu, on_device;
  for (const int64_t n : {5000, 0, 3, 4096, 9000}) {
    on_cpu.push_back(random_tensor(n, n % 2 == 0 ? DType::f32 : DType::bf16));
    on_device.push_back(on_simt(on_cpu.back()));
  }
  EXPECT_EQ(gradient_norm(on_device), gradient_norm(on_cpu));
  on_device.push_back(on_cpu.front());
  EXPECT_THROW(gradient_norm(on_device), ShapeError);
}

struct Clip {
  double norm, factor;
};
Clip clip_of(Device device, std::span<const Tensor> gradients, std::span<const Tensor> watched, ClipParams params) {
  const Tensor clip = Tensor::empty({2}, DType::f64, device);
  clip_factor(clip, gradients, watched, params);
  const Tensor here = moved(clip, {});
  return {here.data<double>()[0], here.data<double>()[1]};
}

// Of more tensors than a launch takes, one of them with several rounds of blocks.
TEST(ClipFactor, HasTheSameBitsOnADevice) {
  std::vector<Tensor> on_cpu, on_device, watched;
  for (int64_t i = 0; i < 270; ++i) {
    on_cpu.push_back(random_tensor(i == 7       ? 4096 * 150 + 1
                                   : i % 5 == 3 ? 0
                                                : 3 * i + 1,
                                   i % 3 == 0 ? DType::bf16 : DType::f32));
    on_device.push_back(on_simt(on_cpu.back()));
  }
  watched = {on_simt(random_tensor(40, DType::f32)), on_simt(random_tensor(5000, DType::f32))};
  const double norm = gradient_norm(on_cpu);
  for (const ClipParams params :
       {ClipParams{}, ClipParams{.max_norm = 1.0}, ClipParams{.max_norm = 0.3, .loss_scale = 1024},
        ClipParams{.max_norm = 1e9, .loss_scale = 8}}) {
    const Clip here = clip_of({}, on_cpu, {}, params), there = clip_of(simt, on_device, watched, params);
    EXPECT_EQ(here.norm, norm / params.loss_scale);
    EXPECT_EQ(here.factor,
              (params.max_norm > 0 ? std::min(1.0, params.max_norm / (here.norm + 1e-6)) : 1.0) / params.loss_scale);
    EXPECT_EQ(there.norm, here.norm);
    EXPECT_EQ(there.factor, here.factor);
  }
}

TEST(ClipFactor, IsNaNWhereTheNormOrWhatIsWatchedIsNotFinite) {
  for (const Device device : {Device{}, simt}) {
    const auto one = [&](float value) {
      return std::vector<Tensor>{moved(Tensor::of<float>(std::span(&value, 1), {1}), device)};
    };
    const auto factor = [&](float gradient, float watched) {
      return clip_of(device, one(gradient), one(watched), {.max_norm = 1.0}).factor;
    };
    EXPECT_EQ(factor(0.5f, -3e38f), 1.0);
    EXPECT_EQ(clip_of(device, {}, {}, {.max_norm = 1.0}).factor, 1.0);
    for (const float broken : {NAN, INFINITY, -INFINITY}) {
      EXPECT_TRUE(std::isnan(factor(broken, 1.0f)));
      EXPECT_TRUE(std::isnan(factor(0.5f, broken)));
      EXPECT_EQ(clip_of(device, one(0.5f), one(broken), {}).norm, 0.5) << "what is watched is no part of it";
    }
  }
}

TEST(GradientNorm, RefusesViewsWithHoles) {
  EXPECT_THROW(sum_of_squares(Tensor::zeros({4, 8}, DType::f32).slice(1, 0, 4)), ShapeError);
  EXPECT_THROW(sum_of_squares(Tensor::zeros({4}, DType::i32)), ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
