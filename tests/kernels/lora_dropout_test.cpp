// LoRA's products with dropout inside: against the f64 reference everywhere, and on devices the bits of dropout and the
// products one after another, in fewer launches.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/error.h"
#include "kernels/add/add.h"
#include "kernels/copy/copy.h"
#include "kernels/cuda/queued_work.h"
#include "kernels/cuda/runtime.h"
#include "kernels/matmul/matmul.h"
#include "tests/kernels/lora_dropout_cases.h"
#include "tests/support/hopper.h"
#include "tests/support/kernel_checks.h"

namespace lathe::kernels {
namespace {

LATHE_CHECK_OPERATIONS(testing::lora_dropout_operations());

constexpr float scale = 1.75f;
constexpr int64_t tokens = 170;
const std::vector<int32_t> bounds{0, 131, 131, 132, tokens}, numbers{5, 9, 0, 65535};

struct Call {
  const char* name;
  DType dtype;
  int64_t columns;
  std::vector<int64_t> ranks;
  int64_t launches;  // of a kernel of ours for all terms; 0: one after another
};
const std::vector<Call>& calls() {
  static const std::vector<Call> all = {{"one", DType::bf16, 136, {16}, 1},
                                        {"wide_rank", DType::f16, 72, {56}, 1},
                                        {"two", DType::bf16, 72, {8, 24}, 1},
                                        {"three", DType::bf16, 200, {16, 16, 16}, 1},
                                        {"six_units", DType::f16, 72, {32, 32, 32}, 1},
                                        {"ranks_of_two_launches", DType::bf16, 72, {64, 64}, 2},
                                        {"no_vectors", DType::bf16, 69, {16}, 0},
                                        {"no_rank", DType::bf16, 72, {4}, 0},
                                        {"f32", DType::f32, 72, {16}, 0}};
  return all;
}

Tensor random_on(Device device, RandomStream& random, const Shape& shape, DType dtype) {
  Tensor made = Tensor::empty(shape, DType::f32);
  for (float& value : made.span<float>()) value = 2.0f * random.uniform() - 1.0f;
  return moved(cast(made, dtype), device);
}

// Operands of a call, of which results are made twice.
struct Operands {
  Tensor x;
  std::vector<Tensor> a, t, grad_a, dt;
  Tensor grad_x;
  DroppedSequences sequences{Tensor::of(std::span<const int32_t>(bounds), {5}),
                             Tensor::of(std::span<const int32_t>(numbers), {4})};

  Operands(Device device, const Call& call) {
    RandomStream random(3, RandomPurpose::test);
    x = random_on(device, random, {tokens, call.columns}, call.dtype);
    grad_x = random_on(device, random, {tokens, call.columns}, call.dtype);
    int64_t all = 0;
    for (const int64_t rank : call.ranks) all += rank;
    // As an adapter has them: t and dt are columns of a wider matrix.
    const Tensor every_t = random_on(device, random, {tokens, all}, call.dtype),
                 every_dt = random_on(device, random, {tokens, all}, call.dtype);
    int64_t begin = 0;
    for (const int64_t rank : call.ranks) {
      a.push_back(random_on(device, random, {rank, call.columns}, call.dtype));
      grad_a.push_back(random_on(device, random, {rank, call.columns}, DType::f32));
      t.push_back(every_t.slice(1, begin, begin + rank));
      dt.push_back(every_dt.slice(1, begin, begin + rank));
      begin += rank;
    }
  }

  static DropoutParams params(size_t term) {
    return {.probability = 0.1f, .seed = 77, .step = 70003, .stream = static_cast<uint16_t>(9 * term + 4)};
  }

  std::map<std::string, Tensor> results() const {
    std::map<std::string, Tensor> all;
    for (size_t i = 0; i < a.size(); ++i) {
      Tensor apart = Tensor::empty(t[i].shape(), t[i].dtype(), t[i].device());
      copy(apart, t[i]);
      all["t" + std::to_string(i)] = moved(apart, {});
      all["grad_a" + std::to_string(i)] = moved(grad_a[i], {});
    }
    all["grad_x"] = moved(grad_x, {});
    return all;
  }
};

void run_fused(const Operands& o) {
  std::vector<DroppedShrink> shrinks;
  std::vector<DroppedGradient> gradients;
  for (size_t i = 0; i < o.a.size(); ++i) {
    shrinks.push_back({o.t[i], o.a[i], Operands::params(i)});
    gradients.push_back({o.grad_a[i], o.dt[i], Operands::params(i)});
  }
  dropped_shrink(o.x, shrinks, scale, o.sequences);
  dropped_factor_gradients(o.x, gradients, o.sequences);
  dropped_input_gradient({o.grad_x, o.dt[0], o.a[0], Operands::params(0)}, o.sequences);
}

void run_one_after_another(const Operands& o) {
  const auto drop = [&](const Tensor& out, const Tensor& x, size_t term) {
    dropout(out, x, o.sequences.cu_seqlens, o.sequences.sample_numbers, Operands::params(term));
  };
  for (size_t i = 0; i < o.a.size(); ++i) {
    const Tensor kept = Tensor::empty(o.x.shape(), o.x.dtype(), o.x.device());
    drop(kept, o.x, i);
    matmul(o.t[i], kept, o.a[i], Layout::transposed, scale);
    linear_weight_gradient(o.grad_a[i], o.dt[i], kept, o.sequences.cu_seqlens);
  }
  const Tensor through = Tensor::empty(o.grad_x.shape(), o.grad_x.dtype(), o.grad_x.device());
  matmul(through, o.dt[0], o.a[0], Layout::plain);
  drop(through, through, 0);
  add(o.grad_x, o.grad_x, through);
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.nbytes())) == 0;
}

void expect_the_bits_of_one_after_another(Device device) {
  for (const Call& call : calls()) {
    SCOPED_TRACE(call.name);
    const Operands fused(device, call), plain(device, call);
    run_fused(fused);
    run_one_after_another(plain);
    const auto found = fused.results(), expected = plain.results();
    for (const auto& [name, tensor] : expected) EXPECT_TRUE(same_bytes(found.at(name), tensor)) << name;
  }
}

class LoraDropoutOnDevice : public ::testing::TestWithParam<DeviceKind> {};
INSTANTIATE_TEST_SUITE_P(, LoraDropoutOnDevice, ::testing::Values(DeviceKind::simt, DeviceKind::cuda),
                         [](const auto& info) { return info.param == DeviceKind::simt ? "simt" : "cuda"; });

TEST_P(LoraDropoutOnDevice, HasTheBitsOfDropoutAndProductsOneAfterAnother) {
  const Device device{GetParam()};
  if (const std::string why = why_unavailable(device); !why.empty()) GTEST_SKIP() << why;
  expect_the_bits_of_one_after_another(device);
}

TEST(LoraDropout, HasTheBitsOfProductsByWgmma) {
  const lathe::testing::Hopper hopper;
  expect_the_bits_of_one_after_another({DeviceKind::simt, 0});
}

struct Launches final : QueuedWorkListener {
  std::map<std::string, int64_t> by_name;
  void queued(const char* name, int64_t) override { ++by_name[name]; }
};

TEST(LoraDropout, IsOneLaunchWhereItHasABody) {
  for (const Call& call : calls()) {
    SCOPED_TRACE(call.name);
    const Operands operands({DeviceKind::simt, 0}, call);
    Launches launches;
    run_fused(operands);
    const auto& queued = launches.by_name;
    const auto count = [&](const char* name) { return queued.contains(name) ? queued.at(name) : 0; };
    EXPECT_EQ(count("dropped_shrink"), call.launches);
    EXPECT_EQ(count("dropped_factor_gradients"), call.launches);
    EXPECT_EQ(count("dropped_input_gradient"), call.launches > 0 ? 1 : 0);
    EXPECT_EQ(count("dropout"), call.launches > 0 ? 0 : 3);
  }
}

TEST(LoraDropout, RefusesOperandsThatDoNotFit) {
  const Operands o({}, {"one", DType::f32, 24, {8}, 0});
  const DroppedShrink narrow{o.t[0], o.a[0].slice(1, 0, 23), Operands::params(0)};
  EXPECT_THROW(dropped_shrink(o.x, {&narrow, 1}, scale, o.sequences), ShapeError);
  const DroppedGradient short_rows{o.grad_a[0], o.dt[0].slice(0, 0, 169), Operands::params(0)};
  EXPECT_THROW(dropped_factor_gradients(o.x, {&short_rows, 1}, o.sequences), ShapeError);
  EXPECT_THROW(dropped_input_gradient({o.grad_x, o.dt[0], o.a[0].slice(0, 0, 7), Operands::params(0)}, o.sequences),
               ShapeError);
  EXPECT_THROW(dropped_input_gradient({o.grad_x.slice(0, 0, 169), o.dt[0].slice(0, 0, 169), o.a[0], {}}, o.sequences),
               ShapeError);
}

}  // namespace
}  // namespace lathe::kernels
