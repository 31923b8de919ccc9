// adamw: against the f64 reference in every body, five steps of torch.optim.AdamW, and bitsandbytes' steps with 8-bit
// states.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/runtime.h"
#include "kernels/quantization/dynamic_map.h"
#include "kernels/simd/isa.h"
#include "tests/kernels/adamw_cases.h"
#include "tests/support/golden.h"
#include "tests/support/kernel_checks.h"

namespace lathe::testing {
namespace {

LATHE_CHECK_OPERATIONS(adamw_operations());

// Five steps from param.0 in one dtype; `relative` bounds the error of each result against PyTorch's f64, relative to
// the tensor's largest element.
void follow_golden(const std::string& run, double weight_decay, DType dtype, double relative) {
  auto golden = golden_tensors("kernels/adamw.safetensors");
  const Tensor weight = kernels::cast(golden[run + ".param.0"], dtype).clone();
  const Tensor m = Tensor::zeros(weight.shape(), dtype), v = Tensor::zeros(weight.shape(), dtype);
  for (int64_t step = 1; step <= 5; ++step) {
    const std::string number = "." + std::to_string(step);
    kernels::adamw(weight, kernels::cast(golden[run + ".grad" + number], dtype), m, v,
                   {.learning_rate = 1e-2, .weight_decay = weight_decay, .step = step});
    const std::pair<const Tensor*, std::string> results[] = {
        {&weight, ".param"}, {&m, ".exp_avg"}, {&v, ".exp_avg_sq"}};
    for (const auto& [found, name] : results) {
      const Tensor wide = kernels::cast(*found, DType::f64), &expected = golden[run + name + number];
      double largest = 0;
      for (const double x : expected.span<double>()) largest = std::max(largest, std::abs(x));
      for (int64_t i = 0; i < wide.numel(); ++i) {
        EXPECT_NEAR(wide.data<double>()[i], expected.data<double>()[i], relative * largest)
            << run << name << number << "[" << i << "]";
      }
    }
  }
}

// About ten roundings a step.
TEST(AdamW, FollowsPyTorchInDouble) {
  follow_golden("plain", 0.0, DType::f64, 50 * 0x1p-53);
  follow_golden("decay", 0.1, DType::f64, 50 * 0x1p-53);
}
TEST(AdamW, FollowsPyTorchInFloat) {
  follow_golden("plain", 0.0, DType::f32, 50 * 0x1p-24);
  follow_golden("decay", 0.1, DType::f32, 50 * 0x1p-24);
}

// Every step from what bitsandbytes had before it. Its sums are the same up to roundings, and no quotient of these lies
// so near the middle between two codes that they would matter.
TEST(AdamW8bit, FollowsBitsandbytes) {
  auto golden = golden_tensors("kernels/adamw_8bit.safetensors");
  for (const auto& [run, weight_decay] : {std::pair<std::string, double>{"plain", 0.0}, {"decay", 0.1}}) {
    const int64_t n = golden[run + ".weight.0"].numel();
    for (int64_t step = 1; step <= 4; ++step) {
      const std::string before = "." + std::to_string(step - 1), number = "." + std::to_string(step);
      const auto start = [&, &prefix = run](const char* name, const Shape& shape, DType dtype) {
        return step == 1 ? Tensor::zeros(shape, dtype) : golden[prefix + name + before].clone();
      };
      const Tensor weight = golden[run + ".weight" + before].clone();
      const kernels::AdamW8bitStates states = {
          start(".m", weight.shape(), DType::u8), start(".v", weight.shape(), DType::u8),
          start(".m_absmax", {(n + 255) / 256}, DType::f32), start(".v_absmax", {(n + 255) / 256}, DType::f32)};
      kernels::adamw_8bit(weight, golden[run + ".grad" + number], states,
                          {.learning_rate = 1e-2, .weight_decay = weight_decay, .step = step});
      const Tensor &expected = golden[run + ".weight" + number], &m = golden[run + ".m" + number],
                   &v = golden[run + ".v" + number];
      for (int64_t i = 0; i < n; ++i) {
        const double x = static_cast<double>(expected.data<float>()[i]);
        EXPECT_NEAR(static_cast<double>(weight.data<float>()[i]), x, 8 * 0x1p-24 * (std::abs(x) + 0.01)) << number << i;
        EXPECT_EQ(states.m.data<uint8_t>()[i], m.data<uint8_t>()[i]) << run << number << " " << i;
        EXPECT_EQ(states.v.data<uint8_t>()[i], v.data<uint8_t>()[i]) << run << number << " " << i;
      }
      const std::pair<const Tensor*, const char*> maxima[] = {{&states.m_absmax, ".m_absmax"},
                                                              {&states.v_absmax, ".v_absmax"}};
      for (const auto& [found, name] : maxima) {
        for (int64_t i = 0; i < found->numel(); ++i)
          EXPECT_FLOAT_EQ(found->data<float>()[i], golden[run + name + number].data<float>()[i]);
      }
    }
  }
}

// With β1 = 0 the new m is the gradient, with β2 = 0 the new v its square: their codes are those of each block's
// quotients by its largest. simt and AVX-512 find codes from the formula of the maps, other sets from nearest_code()
// itself.
void codes_are_nearest(const std::vector<float>& grads, Device device, const std::string& body) {
  const int64_t n = static_cast<int64_t>(grads.size()), blocks = (n + 255) / 256;
  const auto on_device = [&](const Tensor& from) {
    const Tensor to = Tensor::empty(from.shape(), from.dtype(), device);
    kernels::copy_bytes(device, to.raw(), {}, from.raw(), from.nbytes());
    return to;
  };
  const kernels::AdamW8bitStates states = {
      on_device(Tensor::zeros({n}, DType::u8)), on_device(Tensor::zeros({n}, DType::u8)),
      on_device(Tensor::zeros({blocks}, DType::f32)), on_device(Tensor::zeros({blocks}, DType::f32))};
  kernels::adamw_8bit(on_device(Tensor::zeros({n}, DType::f32)), on_device(Tensor::of<float>(grads, {n})), states,
                      {.beta1 = 0.0, .beta2 = 0.0});
  std::vector<uint8_t> m(grads.size()), v(grads.size());
  kernels::copy_bytes({}, m.data(), device, states.m.raw(), n);
  kernels::copy_bytes({}, v.data(), device, states.v.raw(), n);
  for (size_t first = 0; first < grads.size(); first += 256) {
    const size_t end = std::min(first + 256, grads.size());
    float largest = 0.0f;
    for (size_t i = first; i < end; ++i) largest = std::max(largest, std::abs(grads[i]));
    const float square = largest * largest, divisor = largest > 0 ? largest : 1.0f,
                v_divisor = square > 0 ? square : 1.0f;
    for (size_t i = first; i < end; ++i) {
      ASSERT_EQ(m[i], kernels::nearest_code(kernels::signed_dynamic_map(), grads[i] / divisor))
          << body << " " << grads[i] << " of " << largest;
      ASSERT_EQ(v[i], kernels::nearest_code(kernels::unsigned_dynamic_map(), grads[i] * grads[i] / v_divisor))
          << body << " " << grads[i] << " of " << largest;
    }
  }
}

void codes_are_nearest_in_every_body(const std::vector<float>& grads) {
  codes_are_nearest(grads, {DeviceKind::simt}, "simt");
  const kernels::Isa before = kernels::active_isa();
  for (const kernels::Isa isa :
       {kernels::Isa::baseline, kernels::Isa::avx2, kernels::Isa::avx512, kernels::Isa::avx512_bf16}) {
    if (!kernels::machine_has(isa)) continue;
    kernels::set_active_isa(isa);
    codes_are_nearest(grads, {}, std::string(kernels::name_of(isa)));
  }
  kernels::set_active_isa(before);
}

// Every value and every threshold of the maps, and what stands beside them; every block's largest is 1.
TEST(AdamW8bit, CodesAreTheNearestInEveryBody) {
  const kernels::DynamicMap &map = kernels::signed_dynamic_map(), &v_map = kernels::unsigned_dynamic_map();
  std::vector<float> grads;
  for (size_t c = 0; c < 255; ++c) {
    const float at = map.thresholds[c];
    for (const float x : {1.0f, map.values[c], at, std::nextafter(at, -2.0f), std::nextafter(at, 2.0f), 0.0f,
                          std::sqrt(std::abs(at)), at * at})
      grads.push_back(x);
    float root = std::sqrt(v_map.thresholds[c]);
    for (int i = 0; i < 3; ++i) root = std::nextafter(root, 0.0f);
    for (int i = 0; i < 8; ++i, root = std::nextafter(root, 2.0f)) grads.push_back(root);
  }
  codes_are_nearest_in_every_body(grads);
}

// Quotients beside the thresholds, by divisors with few and with all bits, and by those whose reciprocals or remainders
// are denormal (squares stay finite): whoever multiplies by a reciprocal has to round as the division does.
TEST(AdamW8bit, QuotientsAreRoundedInEveryBody) {
  const kernels::DynamicMap& map = kernels::signed_dynamic_map();
  std::vector<float> grads;
  for (const float largest :
       {0x1.000002p0f, 0x1.fffffep0f, 0x1.b504f4p-9f, 3e-7f, 0x1.3p-30f, 0x1.0p-60f, 0x1.fffffep-61f, 0x1.3579bep-62f,
        1e-30f, 0x1.8p-126f, 1e-42f, 0x1.fffffep59f, 0x1.1p61f}) {
    for (const int neighbour : {-1, 0, 1}) {
      for (size_t c = 0; c < 255; ++c) {
        float x = map.thresholds[c] * largest;
        if (neighbour != 0) x = std::nextafter(x, neighbour < 0 ? -2 * largest : 2 * largest);
        grads.push_back(std::abs(x) < largest ? x : 0.0f);
      }
      grads.push_back(largest);
    }
  }
  codes_are_nearest_in_every_body(grads);
}

TEST(AdamW8bit, ABlockOfZerosStaysZero) {
  const Tensor weight = Tensor::zeros({300}, DType::f32), grad = Tensor::zeros({300}, DType::f32);
  grad.data<float>()[299] = 2.0f;
  const kernels::AdamW8bitStates states = {Tensor::zeros({300}, DType::u8), Tensor::zeros({300}, DType::u8),
                                           Tensor::zeros({2}, DType::f32), Tensor::zeros({2}, DType::f32)};
  for (int64_t step = 1; step <= 3; ++step) kernels::adamw_8bit(weight, grad, states, {.step = step});
  for (int64_t i = 0; i < 299; ++i) {
    EXPECT_EQ(weight.data<float>()[i], 0.0f);
    EXPECT_EQ(states.m.data<uint8_t>()[i], 127);
    EXPECT_EQ(states.v.data<uint8_t>()[i], 0);
  }
  EXPECT_EQ(states.m_absmax.data<float>()[0], 0.0f);
  EXPECT_EQ(states.m.data<uint8_t>()[299], 255);
}

TEST(AdamW, ZeroGradientsLeaveAWeightAsItIs) {
  const Tensor weight = Tensor::zeros({3}, DType::f32), zero = Tensor::zeros({3}, DType::f32);
  kernels::fill(weight, 0.3);
  kernels::adamw(weight, zero, Tensor::zeros({3}, DType::f32), Tensor::zeros({3}, DType::f32), {});
  for (const float w : weight.span<float>()) EXPECT_EQ(w, 0.3f);
}

TEST(AdamW, RefusesWhatDoesNotFit) {
  const Tensor w = Tensor::zeros({4}, DType::f32);
  EXPECT_THROW(kernels::adamw(w, Tensor::zeros({5}, DType::f32), w, w, {}), ShapeError);
  EXPECT_THROW(kernels::adamw(w, Tensor::zeros({4}, DType::bf16), w, w, {}), ShapeError);
  EXPECT_THROW(kernels::adamw(w, w, w, Tensor{}, {}), ShapeError);
  EXPECT_THROW(kernels::adamw(w, w, w, w, {.step = 0}), ConfigError);
  const Tensor codes = Tensor::zeros({4}, DType::u8), absmax = Tensor::zeros({1}, DType::f32);
  EXPECT_THROW(kernels::adamw_8bit(w, w, {w, codes, absmax, absmax}, {}), ShapeError);
  EXPECT_THROW(kernels::adamw_8bit(w, w, {codes, codes, absmax, Tensor::zeros({2}, DType::f32)}, {}), ShapeError);
  EXPECT_THROW(kernels::adamw_8bit(w, w, {codes, codes, absmax, absmax}, {.step = 0}), ConfigError);
}

}  // namespace
}  // namespace lathe::testing
